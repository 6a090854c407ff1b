"""Rectified flow (arXiv 2209.03003), as the paper on adversarial post-training writes it.

    x_t = (1 − t)·x0 + t·ε        v = ε − x0        x̂0 = x_t − t·v        L = ‖v − v_θ(x_t, t, c)‖²

Shapes: B batch, C latent channels, T latent frames.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sonarc.contracts.errors import ModelInputError
from sonarc.text.encoder import TextStates


def interpolate(x0_BCT: Tensor, noise_BCT: Tensor, t_B: Tensor) -> Tensor:
    """`x_t = (1 − t)·x0 + t·ε`."""
    t_B11 = t_B[:, None, None]
    return (1 - t_B11) * x0_BCT + t_B11 * noise_BCT


def velocity_target(x0_BCT: Tensor, noise_BCT: Tensor) -> Tensor:
    """`v = ε − x0`, the same at every noise level."""
    return noise_BCT - x0_BCT


def clean_estimate(x_BCT: Tensor, t_B: Tensor, v_BCT: Tensor) -> Tensor:
    """`x̂0 = x_t − t·v`."""
    return x_BCT - t_B[:, None, None] * v_BCT


def velocity_loss(
    predicted_BCT: Tensor, target_BCT: Tensor, mask_BT: Tensor, *, frames: float | Tensor | None = None
) -> Tensor:
    """Mean squared error of the velocity over the true frames, in float32.

    Args:
        predicted_BCT: the model's velocity.
        target_BCT: `ε − x0`.
        mask_BT: True at true frames.
        frames: what to divide by, in frames; None: the true frames of this batch. Workers that each hold a part
            of a batch pass the whole batch's true frames / workers, so that the mean of their losses is the
            loss of the whole batch.

    Raises:
        ModelInputError: no true frame at all, so the loss is undefined.
    """
    divisor = mask_BT.sum() if frames is None else torch.as_tensor(frames)
    if not divisor > 0:
        raise ModelInputError("A batch has no true frame to learn from.", "Check the clips' lengths.")
    error_BT = (predicted_BCT.float() - target_BCT.float()).square().mean(1)
    return (error_BT * mask_BT).sum() / divisor


def drop_text(text: TextStates, share: float, generator: torch.Generator) -> TextStates:
    """CFG dropout: each prompt becomes the null text with probability `share`."""
    return text.dropped(torch.rand(len(text), generator=generator) < share)
