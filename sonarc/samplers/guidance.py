"""Classifier-free guidance: `v = v_null + scale (v_cond - v_null)`.

Source: *Classifier-Free Diffusion Guidance*, arXiv 2207.12598.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sonarc.dit import Conditioning, concatenate_conditioning
from sonarc.samplers.pingpong import Velocity

Model = Callable[..., Tensor]
"""`model(x_BCT, t_B, cond, mask_BT=...) -> v_BCT`."""


def without_cfg(model: Model, cond: Conditioning, mask_BT: Tensor | None = None) -> Velocity:
    """The velocity under one conditioning."""
    return lambda x_BCT, t_B: model(x_BCT, t_B, cond, mask_BT=mask_BT)


def with_cfg(
    model: Model,
    cond: Conditioning,
    scale: float | Tensor,
    *,
    negative: Conditioning | None = None,
    mask_BT: Tensor | None = None,
) -> Velocity:
    """The guided velocity; both conditionings go through the model in one batch.

    Args:
        model: the velocity model.
        cond: prompts and durations.
        scale: 1 is none, and costs no second half of the batch; in a tensor, which is not looked into, it does.
        negative: what to move away from; by default the null text with the same durations.
        mask_BT: True on true frames.
    """
    if not isinstance(scale, Tensor) and scale == 1:
        return without_cfg(model, cond, mask_BT)
    both = concatenate_conditioning([cond, cond.null() if negative is None else negative])
    mask_both = None if mask_BT is None else mask_BT.repeat(2, 1)

    def velocity(x_BCT: Tensor, t_B: Tensor) -> Tensor:
        v_BCT = model(torch.cat([x_BCT, x_BCT]), torch.cat([t_B, t_B]), both, mask_BT=mask_both)
        v_cond_BCT, v_null_BCT = v_BCT.chunk(2)
        return v_null_BCT + scale * (v_cond_BCT - v_null_BCT)

    return velocity
