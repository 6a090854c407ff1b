"""What ingest can come to at best: decode, resample, level and encode, each one call of its library, and nothing else.

As many processes as ingest has tasks, in the environment that stages compute in; no Ray, no checks, no hashes, nothing
written.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from sonarc.contracts.computing import computing_env


@cache
def _meter(rate: int) -> Any:
    import pyloudnorm

    return pyloudnorm.Meter(rate)


def chain(path: Path, rate: int, lufs: float) -> int:
    """One file through the four operations; bytes of the FLAC it ends as."""
    import soundfile
    import soxr

    audio_SA, found = soundfile.read(io.BytesIO(path.read_bytes()), dtype="float32", always_2d=True)
    if found != rate:
        audio_SA = soxr.resample(audio_SA, found, rate, quality="HQ")
    loudness = float(_meter(rate).integrated_loudness(audio_SA.astype(np.float64)))
    audio_SA = audio_SA * np.float32(10 ** ((lufs - loudness) / 20))
    buffer = io.BytesIO()
    soundfile.write(buffer, audio_SA, rate, format="FLAC", subtype="PCM_16")
    return buffer.getbuffer().nbytes


class Limit:
    """Processes that stand ready for `chain`."""

    def __init__(self, pool: ProcessPoolExecutor, rate: int, lufs: float) -> None:
        self._pool, self._work = pool, partial(chain, rate=rate, lufs=lufs)

    def seconds(self, paths: Sequence[Path]) -> float:
        """How long all of them take."""
        begun = time.perf_counter()
        list(self._pool.map(self._work, paths, chunksize=4))
        return time.perf_counter() - begun


@contextmanager
def limit(processes: int, rate: int, lufs: float, warm: Path) -> Iterator[Limit]:
    """The processes, with everything imported and `warm` done once by each."""
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        ready = Limit(pool, rate, lufs)
        with _environment(computing_env(1)):
            ready.seconds([warm] * (8 * processes))
        yield ready


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Processes that start meanwhile have these variables."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
