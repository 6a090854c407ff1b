"""Bytes to a waveform, or a refusal that says why.

The header is checked before anything is decoded, because a few kilobytes can claim hours of audio.
Files are recognised by their content; extensions mean nothing.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import soundfile
from numpy.typing import NDArray

from sonarc.audio.container import MAGIC, read_header
from sonarc.audio.refusal import Refused
from sonarc.contracts.dataset import Reason

MIN_RATE, MAX_RATE = 4_000, 384_000
"""Sample rates read, Hz: from telephone speech below the narrow band to the highest of any converter."""
MAX_CHANNELS = 8
"""Channels read: up to 7.1."""

_UNKNOWN_FRAMES = 1 << 62  # libsndfile's mark for a stream that does not state its length


@dataclass(frozen=True)
class Waveform:
    """Decoded audio.

    Attributes:
        audio_AS: float32 `(A, S)`, finite; full scale is 1.
        sample_rate: Hz.
    """

    audio_AS: NDArray[np.float32]
    sample_rate: int


def decode(data: bytes, *, max_samples: int) -> Waveform:
    """Decode one file.

    Args:
        data: the whole file.
        max_samples: most frames × channels that are decoded.

    Raises:
        Refused: empty, not audio, corrupt, truncated, too large, a rate or channel count out of range, or
            samples that are not finite.
    """
    if not data:
        raise Refused(Reason.EMPTY, "the file has 0 bytes")
    header = read_header(data)
    _check_format(header.channels, header.sample_rate)
    if header.data_end is not None and header.data_end > len(data):
        raise Refused(
            Reason.TRUNCATED, f"the header promises audio up to byte {header.data_end}, the file has {len(data)} bytes"
        )
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            _check_format(file.channels, file.samplerate)
            audio_AS = _read(file, max_samples)
            rate = int(file.samplerate)
    except (soundfile.SoundFileError, RuntimeError, ValueError) as error:
        known = data.startswith(MAGIC)
        raise Refused(Reason.CORRUPT if known else Reason.NOT_AUDIO, _one_line(error)) from error
    if not np.isfinite(audio_AS).all():
        bad = int(np.count_nonzero(~np.isfinite(audio_AS)))
        raise Refused(Reason.NON_FINITE, f"{bad} of {audio_AS.size} samples are not finite numbers")
    return Waveform(audio_AS, rate)


def _check_format(channels: int | None, rate: int | None) -> None:
    if channels is not None and not 1 <= channels <= MAX_CHANNELS:
        raise Refused(Reason.BAD_CHANNELS, f"{channels} channels, not 1 to {MAX_CHANNELS}")
    if rate is not None and not MIN_RATE <= rate <= MAX_RATE:
        raise Refused(Reason.BAD_RATE, f"{rate} Hz, not {MIN_RATE} to {MAX_RATE} Hz")


def _read(file: soundfile.SoundFile, max_samples: int) -> NDArray[np.float32]:
    declared, channels = int(file.frames), int(file.channels)
    if declared == 0:
        raise Refused(Reason.EMPTY, "the header is followed by no audio")
    if declared >= _UNKNOWN_FRAMES:  # nothing bounds it, and libsndfile fails at its end
        raise Refused(Reason.CORRUPT, "the stream does not state its length")
    if declared * channels > max_samples:
        raise Refused(Reason.TOO_LARGE, f"{declared} frames × {channels} channels, more than {max_samples} samples")
    audio_SA = file.read(declared, dtype="float32", always_2d=True)
    # An MP3's tag may count the encoder's padding, two blocks at most.
    slack = 2 * 1152 if file.format == "MP3" else 0
    if len(audio_SA) < declared - slack:
        raise Refused(Reason.TRUNCATED, f"{len(audio_SA)} frames where the header promises {declared}")
    return np.ascontiguousarray(audio_SA.T)


def _one_line(error: Exception) -> str:
    """libsndfile's message without the address of the buffer, which differs from run to run."""
    message = str(error)
    _, _, said = message.rpartition(">: ")
    return (said or message).removeprefix("Error : ").strip().rstrip(".").lower() or type(error).__name__
