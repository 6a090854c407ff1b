"""Target `edge`: the exported model's size, memory and speed, and how far int8 is from float32.

Memory is a fresh process' peak, Python and onnxruntime among it. Int8's clips are heard against float32's
(`sonarc.bench.alike`).
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from sonarc.bench.alike import Clips, likeness
from sonarc.bench.edge_alone import PROMPT
from sonarc.bench.own_process import in_own_process
from sonarc.bench.sheet import BenchRow, BenchSheet, measured
from sonarc.contracts.errors import StageError
from sonarc.contracts.machine import this_machine
from sonarc.contracts.result import recorded_versions
from sonarc.edge.player import Player

if TYPE_CHECKING:
    from sonarc.edge.manifest import EdgeManifest

REPEATS = 5
THREADS = 2
CLIPS = 64
WANTED_MB = 300.0
PRECISIONS = ("int8", "float32")


def measure(package_uri: str, clips: int = CLIPS, repeats: int = REPEATS) -> BenchSheet:
    """Export the package at `package_uri` into a scratch folder and measure what came out."""
    from sonarc.edge.export import export_onnx

    with TemporaryDirectory() as scratch:
        folder = Path(scratch) / "edge"
        manifest = export_onnx(package_uri, folder)
        rows = [*_sizes(manifest), *_alone(folder, repeats)]
        rows.append(measured("cold_seconds.int8", [_cold(folder) for _ in range(repeats)], "s", "lower"))
        rows.append(measured("clip_seconds.pytorch", _pytorch(package_uri, repeats), "s", "lower"))
        rows += _quality(folder, clips)
        seconds = manifest.clip_samples / manifest.sample_rate
    rows.append(measured("clip", [seconds], "s", "higher"))
    return BenchSheet(
        name="edge",
        machine=this_machine(),
        versions=recorded_versions(("torch", "onnx", "onnxruntime", "numpy")) | {"threads": str(THREADS)},
        command="make bench ARGS=edge",
        rows=tuple(rows),
    )


def _sizes(manifest: EdgeManifest) -> Iterator[BenchRow]:
    for precision, graphs in manifest.graphs.items():
        sizes = {network: manifest.files[path].bytes / 1e6 for network, path in graphs.items()}
        for network, size in (sizes | {"all": sum(sizes.values())}).items():
            yield measured(f"size_mb.{precision}.{network}", [size], "MB", "lower")
        for network, error in manifest.errors[precision].items():
            yield measured(f"deviation.{precision}.{network}", [error], "of peak", "lower")


def _alone(folder: Path, repeats: int) -> Iterator[BenchRow]:
    for precision in PRECISIONS:
        found = in_own_process("sonarc.bench.edge_alone", str(folder), precision, str(repeats), str(THREADS))
        if found["torch"]:
            raise StageError("The player has loaded torch.", "What it imports must not.")
        light = precision == "int8"
        name = "edge_rss_mb" if light else f"edge_rss_mb.{precision}"
        yield measured(name, [found["rss_mb"]], "MB", "lower", wanted=WANTED_MB if light else None)
        yield measured(f"kept_rss_mb.{precision}", [found["kept_rss_mb"]], "MB", "lower")
        yield measured(f"clip_seconds.{precision}", found["seconds"], "s", "lower")


def _cold(folder: Path) -> float:
    """Seconds from nothing to a WAV on disk."""
    begun = time.perf_counter()
    command = [sys.executable, str(folder / "player.py"), PROMPT, "-o", str(folder.parent / "cold.wav")]
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - begun


def _pytorch(package_uri: str, repeats: int) -> list[float]:
    import torch

    from sonarc.runtime.generator import Generator

    torch.set_num_threads(THREADS)
    generator = Generator.load(package_uri)
    return [_timed(lambda: generator.generate([PROMPT], [generator.max_seconds], [0])) for _ in range(repeats)]


def _quality(folder: Path, clips: int) -> Iterator[BenchRow]:
    players = {precision: Player(folder, precision, threads=THREADS) for precision in ("float32", "int8")}
    return likeness({name: partial(_played, player) for name, player in players.items()}, clips, THREADS)


def _played(player: Player, prompts: Sequence[str], seeds: Sequence[int]) -> Clips:
    return np.stack([player.generate(prompt, seed=seed) for prompt, seed in zip(prompts, seeds, strict=True)])


def _timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun
