"""AdamW, learning-rate schedules as functions of the step, gradient clipping."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from sonarc.checkpoint.sharded import is_sharded
from sonarc.contracts.errors import SonarcError


class DivergedError(SonarcError):
    """Training produced a loss or gradient that is not finite."""

    code = "diverged"


def adamw(module: nn.Module, *, lr: float, betas: tuple[float, float], weight_decay: float) -> torch.optim.AdamW:
    """Fused AdamW over all parameters of a module, in the order of `named_parameters`."""
    return torch.optim.AdamW(module.parameters(), lr=lr, betas=betas, weight_decay=weight_decay, fused=True)


def linear_warmup(step: int, warmup_steps: int) -> float:
    """Factor in (0, 1] for the update that follows `step` finished ones: rises linearly, then stays 1."""
    return min(1.0, (step + 1) / max(warmup_steps, 1))


def cosine(step: int, steps: int, warmup_steps: int = 0) -> float:
    """Factor for the update that follows `step` finished ones: linear warm-up, then a cosine to 0 at `steps`."""
    if step < warmup_steps:
        return linear_warmup(step, warmup_steps)
    progress = (step - warmup_steps) / max(steps - warmup_steps, 1)
    return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every group."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def clip_gradients(parameters: Iterable[nn.Parameter], largest: float) -> float:
    """Scale gradients so that their joint norm is at most `largest`; returns the norm before.

    Raises:
        DivergedError: the norm is not finite; the optimizer must not step.
    """
    found = torch.nn.utils.clip_grad_norm_(parameters, largest, foreach=True)
    norm = float(found.full_tensor() if is_sharded(found) else found)  # type: ignore[attr-defined]
    if not math.isfinite(norm):
        raise DivergedError(f"The gradient's norm is {norm}.", "Lower the learning rate, or check the latents.")
    return norm
