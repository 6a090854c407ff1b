"""Samples to audio files."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import soundfile

from sonarc.contracts import store
from sonarc.contracts.errors import ConfigError

FORMATS = {"wav": "audio/wav", "flac": "audio/flac"}
"""File ending → media type."""


def encode_audio(audio_AS: np.ndarray, sample_rate: int, kind: str = "wav") -> bytes:
    """The bytes of a WAV or FLAC file of 16-bit samples.

    Args:
        audio_AS: float samples, channels × samples; beyond [-1, 1] is clipped.
        sample_rate: Hz.
        kind: a key of `FORMATS`.
    """
    buffer = io.BytesIO()
    soundfile.write(buffer, np.clip(audio_AS, -1.0, 1.0).T, sample_rate, subtype="PCM_16", format=kind.upper())
    return buffer.getvalue()


def write_audio(path: Path, audio_AS: np.ndarray, sample_rate: int) -> None:
    """Write a WAV or FLAC file, by the path's ending; it appears whole or not at all.

    Raises:
        ConfigError: another ending. StoreError: the file cannot be written.
    """
    kind = path.suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        raise ConfigError(f"Cannot write audio as {path.name!r}.", f"Use one of the endings {', '.join(FORMATS)}.")
    store.write_bytes(str(path), encode_audio(audio_AS, sample_rate, kind))
