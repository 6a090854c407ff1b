"""From embedded rows to scores: every metric of every row, with intervals, and the differences that decide.

A row is one model under one sampling, heard through every embedder. All rows answer the same prompts,
lengths and seeds, so that two of them can be resampled together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from sonarc.contracts.scores import Difference, ModelName, Score
from sonarc.metrics.bootstrap import (
    Interval,
    Resamples,
    interval,
    resampled_frechet,
    resamples,
    weighted_mean,
)
from sonarc.metrics.embedders.interface import Embeddings
from sonarc.metrics.frechet import Floats
from sonarc.metrics.kid import kernel_distance
from sonarc.metrics.manifold import NEIGHBOURS, distances, overlap
from sonarc.metrics.reference import Reference, Space
from sonarc.metrics.sanity import Sanity

STATED = ("accuracy", "in_register", "in_key", "tempo", "loudness", "length")
"""What captions state, in the order of columns; `sonarc.metrics.hearing` and `sonarc.metrics.probe` measure it."""
HIGHER = {
    "adherence", "accuracy", "in_register", "in_key", "tempo", "precision", "recall", "density", "coverage",
    "diversity", "realtime",
}  # fmt: skip
NEAR = {"side_db", "correlation", "rolloff_hz", "centroid_hz", "centroid_spread_hz"}
OVERLAPS = ("precision", "recall", "density", "coverage")
UNITS = {
    "realtime": "s/s",
    "side_db": "dB",
    "rolloff_hz": "Hz",
    "centroid_hz": "Hz",
    "centroid_spread_hz": "Hz",
    "loudness": "dB",
    "length": "s",
    "adherence": "cosine",
    "diversity": "cosine distance",
}


Drawn = tuple[float, Floats]
"""A value and its values over the resamples `(R,)`."""


@dataclass(frozen=True, eq=False)
class Row:
    """One model under one sampling.

    Attributes:
        model, steps, cfg, sampler: what was sampled; 0 steps for real clips and reconstructions.
        prompts: name of the prompt of each of N clips, by which they are resampled.
        seeds: first and last seed.
        vectors: space → raw vectors `(N, E)`; a row without them has no distances.
        adherence_N: cosine of each clip with its prompt; None where the row has no prompts.
        divergence_N: tagger → divergence of each clip's classes from those of the real clip behind its prompt.
        stated_N: figure → how well each clip agrees with what its caption states, NaN where it states nothing.
        diversity_P: conditional diversity of some prompts; None where the row makes one clip a prompt.
        realtime: audio seconds made a wall second of sampling and decoding; None where nothing is made.
        sanity: figures of the clips; None where they are another row's.
    """

    model: ModelName
    steps: int
    cfg: float
    sampler: str
    prompts: Sequence[str]
    seeds: tuple[int, ...]
    vectors: Mapping[str, Embeddings]
    adherence_N: Floats | None = None
    divergence_N: Mapping[str, Floats] = field(default_factory=dict)
    stated_N: Mapping[str, Floats] = field(default_factory=dict)
    diversity_P: Floats | None = None
    realtime: float | None = None
    sanity: Sanity | None = None


@dataclass
class Scorer:
    """Scores rows against one reference.

    Args:
        reference: the pinned set.
        spaces: names of the spaces to score in; the first is the main one, where overlaps are counted.
        clap_sha256: hash of the audio-text model behind adherence and diversity.
        count: resamples behind an interval.
        seed: of the resamples; equal for all rows.
    """

    reference: Reference
    spaces: Sequence[str]
    clap_sha256: str
    count: int
    seed: int
    _draws: dict[tuple[str, ...], Resamples] = field(default_factory=dict, init=False)
    _known: dict[Row, dict[str, Drawn]] = field(default_factory=dict, init=False)

    @cached_property
    def reference_sha256(self) -> str:
        """The reference's hash."""
        return self.reference.manifest.sha256()

    def scores(self, row: Row) -> list[Score]:
        """Every metric of a row; one that cannot be finite is left out, and a rule that needs it then fails."""
        return [self._score(row, metric, *measured) for metric, *measured in self._measure(row)]

    def difference(self, metric: str, a: Row, b: Row) -> Difference | None:
        """`a - b` of a metric whose interval can be drawn, over the same resamples; None where a side lacks it."""
        drawn = [self._resampled(metric, row) for row in (a, b)]
        if drawn[0] is None or drawn[1] is None or list(a.prompts) != list(b.prompts):
            return None
        (value_a, draws_a), (value_b, draws_b) = drawn[0], drawn[1]
        found = interval(value_a - value_b, draws_a - draws_b)
        return Difference(
            metric=metric,
            a=f"{a.model}@{a.steps}",
            b=f"{b.model}@{b.steps}",
            value=found.value,
            low=found.low,
            high=found.high,
            n=len(a.prompts),
            embedder_sha256=self._embedder_sha256(metric),
            reference_sha256=self._reference_of(metric),
        )

    def _measure(self, row: Row) -> Iterator[tuple[str, Interval | float]]:
        names = [f"fd_{space}" for space in self.spaces]
        divergences = [f"kl_{name}" for name in row.divergence_N]
        for metric in (*names, *divergences, *OVERLAPS, "adherence", *STATED, "diversity"):
            if (drawn := self._resampled(metric, row)) is not None:
                yield metric, interval(*drawn)
        for space in self._heard(row):
            yield f"kid_{space.name}", kernel_distance(space.pca(row.vectors[space.name]), space.real_NK)
        if row.realtime is not None:
            yield "realtime", row.realtime
        if row.sanity is not None:
            yield from row.sanity.as_dict().items()

    def _resampled(self, metric: str, row: Row) -> Drawn | None:
        """A metric and its values over the resamples; None where the row has no such metric."""
        if row not in self._known:
            self._known[row] = dict(self._resample(row))
        return self._known[row].get(metric)

    def _resample(self, row: Row) -> Iterator[tuple[str, Drawn]]:
        draws = self._resamples(row.prompts)
        for space in self._heard(row):
            x_NE = row.vectors[space.name]
            yield f"fd_{space.name}", (space.frechet(x_NE), resampled_frechet(space.pca(x_NE), space.gaussian, draws))
            # A handful of clips has no k-th neighbours, and then no overlap.
            if space is self._main and min(len(space.reference_NE), *map(len, draws.halves)) > NEIGHBOURS:
                d = distances(space.real_NK, space.pca(x_NE))
                whole, halves = overlap(d), [overlap(d, rows) for rows in draws.halves]
                for metric in OVERLAPS:
                    yield metric, (getattr(whole, metric), np.array([getattr(half, metric) for half in halves]))
        for name, values_N in row.divergence_N.items():
            yield f"kl_{name}", (float(values_N.mean()), weighted_mean(values_N, draws))
        if row.adherence_N is not None:
            yield "adherence", (float(row.adherence_N.mean()), weighted_mean(row.adherence_N, draws))
        for name, values_N in row.stated_N.items():
            if not np.isnan(values_N).all():
                yield name, (float(np.nanmean(values_N)), weighted_mean(values_N, draws))
        if row.diversity_P is not None:
            prompts = self._resamples([str(p) for p in range(len(row.diversity_P))])
            yield "diversity", (float(row.diversity_P.mean()), weighted_mean(row.diversity_P, prompts))

    def _heard(self, row: Row) -> list[Space]:
        """The spaces that a row has vectors in."""
        return [self.reference.spaces[name] for name in self.spaces if name in row.vectors]

    @property
    def _main(self) -> Space:
        return self.reference.spaces[self.spaces[0]]

    def _resamples(self, prompts: Sequence[str]) -> Resamples:
        names = tuple(prompts)
        if names not in self._draws:
            self._draws[names] = resamples(names, self.count, self.seed)
        return self._draws[names]

    def _score(self, row: Row, metric: str, measured: Interval | float) -> Score:
        value, low, high = (
            (measured.value, measured.low, measured.high) if isinstance(measured, Interval) else (measured, None, None)
        )
        return Score(
            metric=metric,
            model=row.model,
            steps=row.steps,
            cfg=row.cfg,
            sampler=row.sampler,
            value=value,
            low=low,
            high=high,
            unit="nats" if metric.startswith("kl_") else UNITS.get(metric, ""),
            better="higher" if metric in HIGHER else "near" if metric in NEAR else "lower",
            n=len(row.prompts),
            n_real=len(self._main.reference_NE) if self._reference_of(metric) else 0,
            seeds=row.seeds,
            embedder_sha256=self._embedder_sha256(metric),
            reference_sha256=self._reference_of(metric),
        )

    def _embedder_sha256(self, metric: str) -> str:
        if metric in ("adherence", "diversity"):
            return self.clap_sha256
        name = self.spaces[0] if metric in OVERLAPS else metric.partition("_")[2]
        space = self.reference.spaces.get(name)
        return space.embedder_sha256 if space is not None else ""

    def _reference_of(self, metric: str) -> str:
        return self.reference_sha256 if metric in OVERLAPS or metric.startswith(("fd_", "kid_")) else ""
