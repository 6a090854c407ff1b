"""Target `precision`: what a trained model's sounds lose by the fast path in bfloat16, against float32.

The same prompts and seeds by both, at the steps a generator is asked for most. Beside how alike they sound
(`sonarc.bench.alike`) stands how far their samples are apart, which says less: a sound a few samples late is another
waveform and the same sound.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np

from sonarc.bench.alike import PROMPTS, Clips, likeness
from sonarc.bench.sheet import BenchSheet, measured
from sonarc.contracts.machine import this_machine
from sonarc.contracts.result import recorded_versions

if TYPE_CHECKING:
    from sonarc.runtime.generator import Generator

CLIPS, STEPS, BATCH = 256, 4, 8


def measure(package_uri: str, clips: int = CLIPS) -> BenchSheet:
    """Hear what the package at `package_uri` makes in both precisions."""
    import torch

    from sonarc.runtime.generator import Generator

    generator = Generator.load(package_uri)
    ways = {name: partial(_made, generator, name) for name in ("float32", "bfloat16")}
    rows = list(likeness(ways, clips, torch.get_num_threads()))
    exact, fast = (way(PROMPTS, range(len(PROMPTS))) for way in ways.values())
    rows.append(measured("difference_db.bfloat16", difference_db(exact, fast), "dB", "lower"))
    return BenchSheet(
        name="precision",
        machine=this_machine(),
        versions=recorded_versions(("torch", "numpy")) | {"package": generator.package_sha256[:16]},
        command="make bench ARGS=precision",
        rows=tuple(rows),
    )


def difference_db(exact: Clips, other: Clips) -> list[float]:
    """Power of each clip's difference, in dB of the clip's own."""
    return [
        float(10 * np.log10(np.square(a - b).sum() / np.square(a).sum() + 1e-20))
        for a, b in zip(exact, other, strict=True)
    ]


def _made(
    generator: Generator, precision: Literal["float32", "bfloat16"], prompts: Sequence[str], seeds: Sequence[int]
) -> Clips:
    found: list[np.ndarray] = []
    for first in range(0, len(prompts), BATCH):
        some = slice(first, first + BATCH)
        seconds = [generator.max_seconds] * len(prompts[some])
        found += generator.generate(prompts[some], seconds, seeds[some], steps=STEPS, precision=precision)
    return np.stack(found)
