"""A sound to begin from: variations of it, and sounds that keep a part of it.

Shapes: A audio channels, S samples, B clips, C latent channels, T latent frames.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sonarc.codec.interface import Codec
from sonarc.contracts.errors import ModelInputError
from sonarc.samplers import Known, Start


@dataclass(frozen=True)
class Edit:
    """What is given, and what of it stays.

    Attributes:
        audio_AS: float32 samples in [-1, 1] at the codec's rate and channels; cut or padded to the clip.
        noise: how much of it is forgotten, in (0, 1]; 1: all but what is kept.
        keep: seconds from … to that stay as they are; the end may lie beyond the audio. None: nothing.
    """

    audio_AS: NDArray[np.float32]
    noise: float = 1.0
    keep: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.audio_AS.ndim != 2 or self.audio_AS.shape[1] == 0 or not np.isfinite(self.audio_AS).all():
            raise ModelInputError(
                f"The sound to begin from has the shape {self.audio_AS.shape}, or samples that are not finite.",
                "Give (channels, samples) of ordinary audio.",
            )
        if self.keep is not None:
            first, last = self.keep
            if not (math.isfinite(first) and 0 <= first < last):
                raise ModelInputError(f"Seconds {first} to {last} are to be kept.", "Use 0 ≤ from < to.")
        elif self.noise >= 1:
            raise ModelInputError(
                f"With noise {self.noise} and nothing kept, the given sound has no say.",
                "Use less noise than 1, or keep a part of the sound.",
            )

    def prepare(self, codec: Codec, mask_BT: Tensor) -> tuple[Start | None, Known | None]:
        """The sampler's arguments for a batch of clips that all begin from this sound.

        Args:
            codec: what the model's latents are of.
            mask_BT: True at true frames; on the codec's device.

        Raises:
            ModelInputError: audio of other channels than the codec's, or a noise level out of range.
        """
        frames, device = mask_BT.shape[1], mask_BT.device
        samples = frames * codec.hop
        audio_AS = np.zeros((self.audio_AS.shape[0], samples), np.float32)
        given = min(samples, self.audio_AS.shape[1])
        audio_AS[:, :given] = self.audio_AS[:, :given]
        latents_BCT = codec.encode(torch.from_numpy(audio_AS)[None].to(device)).expand(len(mask_BT), -1, -1)
        start = Start(latents_BCT, self.noise) if self.noise != 1 else None
        if self.keep is None:
            return start, None
        first, last = self.keep
        centre_T = (torch.arange(frames, device=device) + 0.5) * codec.hop / codec.sample_rate
        keep_BT = ((centre_T >= first) & (centre_T < last)).expand(len(mask_BT), -1)
        return start, Known(latents_BCT, keep_BT)
