"""Euler's method on the probability-flow ODE dx/dt = v."""

from __future__ import annotations

from torch import Tensor

from sonarc.samplers.pingpong import Velocity


def euler(velocity: Velocity, x_BCT: Tensor, t_N: Tensor) -> Tensor:
    """Latents at level `t_N[-1]`, first order in the step size.

    Args:
        velocity: the model, with guidance or without.
        x_BCT: the start at level `t_N[0]`; pure noise when that is 1.
        t_N: decreasing noise levels.
    """
    for t, t_next in zip(t_N[:-1].tolist(), t_N[1:].tolist(), strict=True):
        x_BCT = x_BCT + (t_next - t) * velocity(x_BCT, x_BCT.new_full((len(x_BCT),), t))
    return x_BCT
