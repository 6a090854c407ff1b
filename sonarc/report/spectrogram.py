"""Audio as something a page can carry: an OGG player's data and a spectrogram, both as data URIs.

Shapes: S samples, A audio channels, F frequency rows, T columns.
"""

from __future__ import annotations

import base64
import io
import itertools
import math
from pathlib import Path

import numpy as np
import soundfile
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image

from sonarc.contracts.errors import DataError

WIDTH, HEIGHT = 288, 112
"""Size of a spectrogram, pixels."""
LOWEST_HZ = 40.0
HIGHEST_HZ = 20_000.0
FLOOR_DB, TOP_DB = -95.0, -15.0
"""Power shown as the darkest and the brightest colour, dB full scale: fixed, so that pictures compare."""

_FFT = 2_048
_BLOCK = 16_384


def read_audio(path: Path) -> tuple[NDArray[np.float32], int]:
    """Audio of a file: (S, A) float32 and its sample rate.

    Raises:
        DataError: it is no readable audio, or is empty.
    """
    try:
        audio_SA, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        raise DataError(f"{path} is not readable audio: {error}.", "Evaluate again.") from error
    if audio_SA.size == 0:
        raise DataError(f"{path} holds no audio.", "Evaluate again.")
    return audio_SA, int(rate)


def audio_uri(audio_SA: NDArray[np.float32], rate: int) -> str:
    """The audio as an OGG Vorbis data URI, a tenth of the WAV's size. NaN plays as silence."""
    sound_SA = np.clip(np.nan_to_num(audio_SA), -1.0, 1.0)
    buffer = io.BytesIO()
    with soundfile.SoundFile(
        buffer, "w", samplerate=rate, channels=sound_SA.shape[1], format="OGG", subtype="VORBIS"
    ) as file:
        # libvorbis overflows its stack on one large block.
        for start in range(0, len(sound_SA), _BLOCK):
            file.write(sound_SA[start : start + _BLOCK])
    return _data_uri("audio/ogg", buffer.getvalue())


def spectrogram_uri(audio_SA: NDArray[np.float32], rate: int) -> str:
    """A spectrogram of the channels' mean power, log frequency upwards, as a PNG data URI."""
    level_FT = spectrogram_db(audio_SA, rate)
    scaled_FT = np.clip((level_FT - FLOOR_DB) / (TOP_DB - FLOOR_DB), 0.0, 1.0)
    image = Image.fromarray((scaled_FT[::-1] * 255).astype(np.uint8), mode="P")
    palette = (colormaps["magma"](np.linspace(0, 1, 256))[:, :3] * 255).astype(np.uint8)
    image.putpalette(palette.tobytes())
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return _data_uri("image/png", buffer.getvalue())


def spectrogram_db(audio_SA: NDArray[np.float32], rate: int) -> NDArray[np.float64]:
    """Power in dB full scale, (HEIGHT, WIDTH), low frequencies first. A full-scale sine reads 0 dB."""
    sound_AS = np.nan_to_num(audio_SA.T).astype(np.float64)
    padded_AS = np.pad(sound_AS, ((0, 0), (_FFT // 2, _FFT // 2)))
    starts_T = np.linspace(0, sound_AS.shape[1] - 1, WIDTH).astype(np.int64)
    frames_ATS = np.lib.stride_tricks.sliding_window_view(padded_AS, _FFT, axis=1)[:, starts_T]
    window_S = np.hanning(_FFT)
    amplitude_ATF = np.abs(np.fft.rfft(frames_ATS * window_S, axis=2)) * 2 / window_S.sum()
    power_TF = np.mean(amplitude_ATF**2, axis=0)
    edges_F = np.geomspace(LOWEST_HZ, min(HIGHEST_HZ, rate / 2), HEIGHT + 1) * _FFT / rate
    rows = [_row(power_TF, low, high) for low, high in itertools.pairwise(edges_F)]
    return np.asarray(10 * np.log10(np.maximum(np.stack(rows), 1e-12)))


def _row(power_TF: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    """The strongest power between two places on the bin axis, so that a narrow partial is never stepped over."""
    first, last = math.ceil(low), math.floor(high)
    if first <= last:
        return np.asarray(power_TF[:, first : last + 1].max(axis=1))
    share = (low + high) / 2 - last
    return np.asarray(power_TF[:, last] * (1 - share) + power_TF[:, first] * share)


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
