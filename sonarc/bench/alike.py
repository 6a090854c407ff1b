"""How alike two ways of running one model sound: clips of the same prompts and seeds, in the shipped CLAP's space.

Clips of the first way with other seeds, heard alike, say how far two draws of one model are apart: what differs by much
less than that is the same to a listener.

Shapes: N clips, A audio channels, S samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from sonarc.bench.sheet import BenchRow, measured

COMPONENTS = 16
"""Axes that a Fréchet distance of so few clips is taken over."""
PROMPTS = (
    "a slow fiddle tune in D major", "a bright hi-hat loop", "a low church organ chord", "a kick drum",
    "a fast piano melody in C minor", "a plucked guitar note", "a soft flute phrase", "a glass breaking",
    "a deep bass drone", "a snare roll", "bells in the distance", "a string ensemble in G major",
    "a short vinyl scratch", "a trumpet call", "an ambient pad", "a marimba melody",
)  # fmt: skip
Clips = NDArray[np.float32]
Make = Callable[[Sequence[str], Sequence[int]], Clips]
"""Prompts and as many seeds → clips `(N, A, S)`."""


def likeness(ways: Mapping[str, Make], clips: int, threads: int) -> Iterator[BenchRow]:
    """`adherence.*`, `frechet.*` and `cosine.*` of each way; distances and cosines are from the first one's clips.

    Args:
        ways: how clips are made, by name; the first is what the others are measured by.
        clips: of each way, and once more of the first with other seeds.
        threads: of the CLAP.
    """
    from sonarc.metrics.embedders.clap import load_clap
    from sonarc.metrics.frechet import fit_pca, frechet_distance, gaussian

    clap = load_clap(threads=threads)
    prompts = [PROMPTS[i % len(PROMPTS)] for i in range(clips)]
    heard = {name: clap(make(prompts, range(clips))) for name, make in ways.items()}
    exact, *others = ways
    text_NE = clap.text(prompts)
    for name in ways:
        cosine_N = (heard[name] * text_NE).sum(1)
        value = round(float(cosine_N.mean()), 4)
        yield BenchRow(name=f"adherence.{name}", value=value, unit="cosine", better="higher", n=clips)
    heard["other_seeds"] = clap(ways[exact](prompts, range(clips, 2 * clips)))
    pca = fit_pca(np.concatenate([heard[exact], heard["other_seeds"]]), COMPONENTS)
    shape = gaussian(pca(heard[exact]))
    for name in (*others, "other_seeds"):
        distance = frechet_distance(gaussian(pca(heard[name])), shape)
        yield BenchRow(name=f"frechet.{name}", value=round(distance, 5), unit="squared", better="lower", n=clips)
    for name in others:
        yield measured(f"cosine.{name}", [float(x) for x in (heard[name] * heard[exact]).sum(1)], "cosine", "higher")
