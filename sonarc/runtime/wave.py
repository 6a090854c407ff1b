"""Samples to audio files."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from sonarc.contracts import store
from sonarc.contracts.errors import ConfigError

_BLOCK = 16_384
"""Frames written at once: libsndfile's Vorbis encoder puts a whole call's samples on the stack."""


@dataclass(frozen=True)
class _Container:
    media: str
    format: str
    subtype: str


_CONTAINERS = {
    "wav": _Container("audio/wav", "WAV", "PCM_16"),
    "flac": _Container("audio/flac", "FLAC", "PCM_16"),
    "ogg": _Container("audio/ogg", "OGG", "VORBIS"),
    "mp3": _Container("audio/mpeg", "MP3", "MPEG_LAYER_III"),
    "pcm": _Container("audio/pcm", "RAW", "PCM_16"),
}
FORMATS = {kind: container.media for kind, container in _CONTAINERS.items()}
"""Kind → media type. `pcm` is headerless: signed 16-bit little-endian samples, channels interleaved."""
FILES = tuple(kind for kind in FORMATS if kind != "pcm")
"""Kinds that a file may have: those that carry their own rate and channels."""


def encode_audio(audio_AS: np.ndarray, sample_rate: int, kind: str = "wav") -> bytes:
    """The bytes of an audio file: 16-bit samples, or what a lossy encoder makes of them.

    Args:
        audio_AS: float samples, channels × samples; beyond [-1, 1] is clipped.
        sample_rate: Hz.
        kind: a key of `FORMATS`.
    """
    container = _CONTAINERS[kind]
    buffer = io.BytesIO()
    samples_SA = np.clip(audio_AS, -1.0, 1.0).T
    with soundfile.SoundFile(
        buffer,
        "w",
        sample_rate,
        samples_SA.shape[1],
        subtype=container.subtype,
        endian="LITTLE" if container.format == "RAW" else None,
        format=container.format,
    ) as file:
        for begin in range(0, len(samples_SA), _BLOCK):
            file.write(samples_SA[begin : begin + _BLOCK])
    return buffer.getvalue()


def write_audio(path: Path, audio_AS: np.ndarray, sample_rate: int) -> None:
    """Write an audio file of the kind its ending names; it appears whole or not at all.

    Raises:
        ConfigError: another ending. StoreError: the file cannot be written.
    """
    kind = path.suffix.lower().removeprefix(".")
    if kind not in FILES:
        raise ConfigError(f"Cannot write audio as {path.name!r}.", f"Use one of the endings {', '.join(FILES)}.")
    store.write_bytes(str(path), encode_audio(audio_AS, sample_rate, kind))
