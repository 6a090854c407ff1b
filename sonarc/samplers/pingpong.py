"""Ping-pong sampling: estimate clean latents, add fresh noise of the next level, again.

Source: the sampler of *Fast Text-to-Audio Generation with Adversarial Post-Training*, arXiv 2505.08175.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from sonarc.samplers.noise import Noise

Velocity = Callable[[Tensor, Tensor], Tensor]
"""`velocity(x_BCT, t_B) -> v_BCT`, the model's estimate of ε - x0."""


def pingpong(velocity: Velocity, x_BCT: Tensor, t_N: Tensor, noise: Noise) -> Tensor:
    """Clean latents `(B, C, T)` after `len(t_N) - 1` evaluations.

    Args:
        velocity: the ARC generator, without guidance.
        x_BCT: the start at level `t_N[0]`; `noise(0)` when that is 1.
        t_N: decreasing noise levels, the last one 0.
        noise: fresh noise; draw i is used after step i, counted from 1.
    """
    clean_BCT = x_BCT
    for i, (t, t_next) in enumerate(zip(t_N[:-1].tolist(), t_N[1:].tolist(), strict=True), start=1):
        clean_BCT = x_BCT - t * velocity(x_BCT, x_BCT.new_full((len(x_BCT),), t))
        if t_next > 0:
            x_BCT = (1 - t_next) * clean_BCT + t_next * noise(i)
    return clean_BCT
