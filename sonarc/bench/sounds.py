"""Files of audio to ingest: coloured noise whose spectrum and envelope differ from file to file, as FLAC."""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

BANDS, POINTS = 30, 9
DEPTH_DB = 40.0


def sound(number: int, seconds: float, rate: int) -> NDArray[np.float32]:
    """Stereo noise `(2, S)`, full scale 0.5, that no other number sounds like."""
    random = np.random.default_rng(number)
    samples = round(seconds * rate)
    bins = np.geomspace(1, samples // 2 + 1, BANDS)
    gains_F = np.interp(np.arange(samples // 2 + 1), bins, 10 ** (random.uniform(-DEPTH_DB, 0, BANDS) / 20))
    spectrum_AF = random.standard_normal((2, samples // 2 + 1)) + 1j * random.standard_normal((2, samples // 2 + 1))
    audio_AS = np.fft.irfft(spectrum_AF * gains_F, samples)
    audio_AS *= np.interp(np.arange(samples), np.linspace(0, samples, POINTS), random.uniform(0.05, 1.0, POINTS))
    return np.asarray(0.5 * audio_AS / np.abs(audio_AS).max(), np.float32)


def _write(number: int, folder: Path, seconds: float, rate: int) -> None:
    from sonarc.audio import encode_flac

    (folder / _name(number)).write_bytes(encode_flac(sound(number, seconds, rate), rate))


def _name(number: int) -> str:
    return f"{number:06d}.flac"


def write_sounds(folder: Path, count: int, seconds: float, rate: int, processes: int = 2) -> list[Path]:
    """`count` files in a folder, with `captions.jsonl`; their paths."""
    folder.mkdir(parents=True)
    rows = ({"path": _name(number), "captions": [f"noise of colour {number}"]} for number in range(count))
    (folder / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    work = partial(_write, folder=folder, seconds=seconds, rate=rate)
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        list(pool.map(work, range(count), chunksize=16))
    return [folder / _name(number) for number in range(count)]
