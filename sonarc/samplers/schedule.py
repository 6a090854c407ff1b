"""Noise-level schedules: decreasing t from 1 (pure noise) to 0 (data), N steps are N + 1 points."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sonarc.contracts.errors import ModelInputError


def check_steps(steps: int) -> None:
    """Refuse a step count below 1.

    Raises:
        ModelInputError: naming the count.
    """
    if steps < 1:
        raise ModelInputError(f"The number of sampling steps is {steps}.", "Use 1 or more, such as 4 or 8.")


def logsnr_schedule(steps: int, *, logsnr_min: float = -6.0, logsnr_max: float = 2.0) -> Tensor:
    """The ARC generator's schedule: linear in logSNR, `t = sigmoid(-logSNR)`, ends forced to 1 and 0.

    4 steps: 1, .982014, .880797, .5, 0. Source: stable-audio-tools, the sampling of the released ARC models.

    Args:
        steps: network evaluations N, at least 1.
        logsnr_min: logSNR of the (replaced) first point.
        logsnr_max: logSNR of the (replaced) last point.

    Returns:
        `(N + 1,)` float32, strictly decreasing.
    """
    check_steps(steps)
    t = torch.sigmoid(-torch.linspace(logsnr_min, logsnr_max, steps + 1, dtype=torch.float64))
    t[0], t[-1] = 1.0, 0.0
    return t.float()


def uniform_schedule(steps: int) -> Tensor:
    """Equally spaced t: `(N + 1,)` float32 from 1 to 0."""
    check_steps(steps)
    return torch.linspace(1.0, 0.0, steps + 1)


def shift_schedule(t_N: Tensor, frames: int) -> Tensor:
    """The base model's length-dependent shift towards noise: longer sequences spend more steps near t = 1.

    `t' = t / (e^μ (1 - t) + t)` with `μ = -(0.5 + 0.65 (clamp(L, 256, 4096) - 256) / 3840)`.
    Source: the distribution shift of stable-audio-tools.

    Args:
        t_N: a schedule; 0 and 1 stay where they are.
        frames: latent length L.
    """
    clamped = min(max(frames, 256), 4096)
    mu = -(0.5 + 0.65 * (clamped - 256) / 3840)
    return t_N / (math.exp(mu) * (1 - t_N) + t_N)
