"""Editing sound: start from given latents (audio-to-audio), or keep some frames of them (inpainting, continuation).

Shapes: B batch, C latent channels, T latent frames.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sonarc.contracts.errors import ModelInputError
from sonarc.samplers.pingpong import Velocity


@dataclass(frozen=True)
class Start:
    """Audio-to-audio: the trajectory begins at `(1 - σ)·x_init + σ·noise`.

    Attributes:
        latents_BCT: x_init.
        noise: σ in (0, 1]; 1 leaves nothing of x_init, small values nearly everything.
    """

    latents_BCT: Tensor
    noise: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.noise) and 0 < self.noise <= 1):
            raise ModelInputError(f"The noise level to start from is {self.noise}.", "Use more than 0 and at most 1.")
        _check_finite(self.latents_BCT)

    def at(self, noise_BCT: Tensor) -> Tensor:
        """The trajectory's first point.

        Raises:
            ModelInputError: latents of another shape than the noise.
        """
        _check_shape(self.latents_BCT, noise_BCT)
        return (1 - self.noise) * self.latents_BCT + self.noise * noise_BCT


@dataclass(frozen=True)
class Known:
    """Inpainting: some frames are given, the model finds the others. Continuation is to keep the first frames.

    Attributes:
        latents_BCT: the given latents; what they hold in other frames is not read.
        keep_BT: True at frames that stay.
    """

    latents_BCT: Tensor
    keep_BT: Tensor

    def __post_init__(self) -> None:
        shape = (self.latents_BCT.shape[0], self.latents_BCT.shape[2])
        if self.keep_BT.shape != shape or self.keep_BT.dtype != torch.bool:
            raise ModelInputError(
                f"A {self.keep_BT.dtype} mask of shape {tuple(self.keep_BT.shape)} came with latents of shape "
                f"{tuple(self.latents_BCT.shape)}.",
                "Give one True or False a frame.",
            )
        _check_finite(self.latents_BCT.masked_fill(~self.keep_BT[:, None], 0.0))

    def guide(self, velocity: Velocity) -> Velocity:
        """The velocity that leads kept frames straight to what is given: `v = (x - x_known) / t` there.

        Its clean estimate `x - t·v` is then x_known at every step, and every sampler of this package, first or
        second order, arrives there exactly; in between, the model sees those frames at the noise level of the
        others.
        """

        def guided(x_BCT: Tensor, t_B: Tensor) -> Tensor:
            _check_shape(self.latents_BCT, x_BCT)
            straight_BCT = (x_BCT - self.latents_BCT) / t_B[:, None, None]
            return torch.where(self.keep_BT[:, None], straight_BCT, velocity(x_BCT, t_B))

        return guided


def _check_finite(latents_BCT: Tensor) -> None:
    if not torch.isfinite(latents_BCT).all():
        raise ModelInputError("The given latents hold NaN or infinity.", "Encode the audio again.")


def _check_shape(latents_BCT: Tensor, x_BCT: Tensor) -> None:
    if latents_BCT.shape != x_BCT.shape:
        raise ModelInputError(
            f"Given latents of shape {tuple(latents_BCT.shape)} do not fit a sample of {tuple(x_BCT.shape)}.",
            "Give one clip a prompt, padded or cut to the frames that are generated.",
        )
