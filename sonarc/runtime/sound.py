"""A sound file that a generation begins from. No torch here: the endpoint reads uploads before a model sees them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sonarc.audio import Refused, decode, to_stereo
from sonarc.contracts.errors import ModelInputError

MAX_SAMPLES = 44_100 * 2 * 600
"""Most samples × channels of a file to begin from: ten minutes of stereo. Only a clip's length of it is used."""


def decode_sound(data: bytes, sample_rate: int, *, max_samples: int = MAX_SAMPLES) -> NDArray[np.float32]:
    """Stereo samples `(2, S)` of a file's bytes at a rate.

    Args:
        data: the whole file, of any kind that libsndfile reads.
        sample_rate: Hz of what is returned.
        max_samples: most samples × channels that are decoded.

    Raises:
        Refused: it is no sound audio.
    """
    import soxr

    waveform = decode(data, max_samples=max_samples)
    stereo_AS = to_stereo(waveform.audio_AS)
    if waveform.sample_rate != sample_rate:
        stereo_AS = soxr.resample(stereo_AS.T, waveform.sample_rate, sample_rate, quality="HQ").T
    return np.ascontiguousarray(stereo_AS, dtype=np.float32)


def read_sound(path: Path, sample_rate: int) -> NDArray[np.float32]:
    """Stereo samples `(2, S)` of an audio file at a rate.

    Raises:
        ModelInputError: it cannot be read, or is no sound audio.
    """
    try:
        return decode_sound(path.read_bytes(), sample_rate)
    except OSError as error:
        raise ModelInputError(f"Cannot read {path}: {error.strerror}.", "Check the path.") from error
    except Refused as error:
        raise ModelInputError(f"{path} is no sound to begin from: {error}.", "Use a WAV, FLAC, OGG or MP3.") from error
