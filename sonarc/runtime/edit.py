"""A sound to begin from: variations of it, and sounds that keep a part of it.

Shapes: A audio channels, S samples, B clips, C latent channels, T latent frames.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sonarc.codec.interface import Codec
from sonarc.contracts.errors import ModelInputError
from sonarc.samplers import Known, Start

MAX_SAMPLES = 44_100 * 2 * 600
"""Most samples × channels of a file to begin from: ten minutes of stereo. Only a clip's length of it is used."""


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

        Raises:
            ModelInputError: audio of other channels than the codec's, or a noise level out of range.
        """
        frames = mask_BT.shape[1]
        samples = frames * codec.hop
        audio_AS = np.zeros((self.audio_AS.shape[0], samples), np.float32)
        given = min(samples, self.audio_AS.shape[1])
        audio_AS[:, :given] = self.audio_AS[:, :given]
        latents_BCT = codec.encode(torch.from_numpy(audio_AS)[None]).expand(len(mask_BT), -1, -1)
        start = Start(latents_BCT, self.noise) if self.noise != 1 else None
        if self.keep is None:
            return start, None
        first, last = self.keep
        centre_T = (torch.arange(frames) + 0.5) * codec.hop / codec.sample_rate
        keep_BT = ((centre_T >= first) & (centre_T < last)).expand(len(mask_BT), -1)
        return start, Known(latents_BCT, keep_BT)


def read_sound(path: Path, sample_rate: int) -> NDArray[np.float32]:
    """Stereo samples `(2, S)` of an audio file at a rate.

    Raises:
        ModelInputError: it cannot be read, or is no sound audio.
    """
    import soxr

    from sonarc.audio import Refused, decode, to_stereo

    try:
        waveform = decode(path.read_bytes(), max_samples=MAX_SAMPLES)
        stereo_AS = to_stereo(waveform.audio_AS)
    except OSError as error:
        raise ModelInputError(f"Cannot read {path}: {error.strerror}.", "Check the path.") from error
    except Refused as error:
        raise ModelInputError(f"{path} is no sound to begin from: {error}.", "Use a WAV, FLAC, OGG or MP3.") from error
    if waveform.sample_rate != sample_rate:
        stereo_AS = soxr.resample(stereo_AS.T, waveform.sample_rate, sample_rate, quality="HQ").T
    return np.ascontiguousarray(stereo_AS, dtype=np.float32)
