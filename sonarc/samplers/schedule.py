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


def logsnr_schedule(steps: int, *, start: float = 1.0, logsnr_min: float = -6.0, logsnr_max: float = 2.0) -> Tensor:
    """The ARC generator's schedule: linear in logSNR, `t = sigmoid(-logSNR)`, ends forced to `start` and 0.

    4 steps: 1, .982014, .880797, .5, 0. Source: stable-audio-tools, the sampling of the released ARC models.

    Args:
        steps: network evaluations N, at least 1.
        start: first noise level; below 1 the trajectory begins with something of given latents.
        logsnr_min: logSNR of the (replaced) first point, where `start` is not above it.
        logsnr_max: logSNR of the (replaced) last point.

    Returns:
        `(N + 1,)` float32, strictly decreasing.
    """
    check_steps(steps)
    first = logsnr_min if start >= 1 else max(logsnr_min, math.log((1 - start) / start))
    # A start that is cleaner than the usual last point still needs room to fall.
    last = max(logsnr_max, first + 1)
    t = torch.sigmoid(-torch.linspace(first, last, steps + 1, dtype=torch.float64))
    t[0], t[-1] = start, 0.0
    return t.float()


def uniform_schedule(steps: int, *, start: float = 1.0) -> Tensor:
    """Equally spaced t: `(N + 1,)` float32 from `start` to 0."""
    check_steps(steps)
    return torch.linspace(start, 0.0, steps + 1)


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
