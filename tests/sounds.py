"""Small sounds and the files they make."""

from __future__ import annotations

import io

import numpy as np
import soundfile
from numpy.typing import NDArray

RATE = 44_100


def tone(
    seconds: float = 0.5, *, hz: float = 440.0, level: float = 0.3, rate: int = RATE, channels: int = 2
) -> NDArray[np.float32]:
    """A sine `(channels, samples)`, the same on every channel."""
    wave = level * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)
    return np.tile(wave.astype(np.float32), (channels, 1))


def noise(seconds: float = 0.5, *, level: float = 0.1, seed: int = 0, channels: int = 2) -> NDArray[np.float32]:
    """White noise `(channels, samples)`."""
    shape = (channels, round(seconds * RATE))
    return (level * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def file_of(audio_AS: NDArray[np.float32], container: str = "WAV", subtype: str = "PCM_16", rate: int = RATE) -> bytes:
    """The bytes of an audio file."""
    buffer = io.BytesIO()
    soundfile.write(buffer, audio_AS.T, rate, format=container, subtype=subtype)
    return buffer.getvalue()
