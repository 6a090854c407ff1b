"""DPM-Solver++(2M) for rectified flow, where α = 1 - t, σ = t and logSNR/2 is λ = log((1 - t) / t).

Source: *DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models*, arXiv 2211.01095.
"""

from __future__ import annotations

import math

from torch import Tensor

from sonarc.samplers.pingpong import Velocity


def dpmpp_2m(velocity: Velocity, x_BCT: Tensor, t_N: Tensor) -> Tensor:
    """Latents at level `t_N[-1]`, second order in the step size.

    A step is exact for a constant estimate x̂0; two estimates are extrapolated linearly in λ. The first and
    the last step are of first order: λ is infinite at t = 1 and t = 0.

    Args:
        velocity: the model, with guidance or without.
        x_BCT: the start at level `t_N[0]`; pure noise when that is 1.
        t_N: decreasing noise levels.
    """
    clean_before_BCT, h_before = None, math.inf
    for t, t_next in zip(t_N[:-1].tolist(), t_N[1:].tolist(), strict=True):
        clean_BCT = x_BCT - t * velocity(x_BCT, x_BCT.new_full((len(x_BCT),), t))
        h = _lambda(t_next) - _lambda(t)
        if clean_before_BCT is None or math.isinf(h) or math.isinf(h_before):
            estimate_BCT = clean_BCT
        else:
            estimate_BCT = clean_BCT + h / (2 * h_before) * (clean_BCT - clean_before_BCT)
        # In this form, x' = (σ'/σ) x - α' (e^-h - 1) x̂0, e^-h is 0 for the infinite h of both ends.
        x_BCT = (t_next / t) * x_BCT - (1 - t_next) * math.expm1(-h) * estimate_BCT
        clean_before_BCT, h_before = clean_BCT, h
    return x_BCT


def _lambda(t: float) -> float:
    if t >= 1:
        return -math.inf
    return math.inf if t <= 0 else math.log((1 - t) / t)
