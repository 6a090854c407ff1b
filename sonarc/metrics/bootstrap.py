"""Intervals by resampling prompts, and paired differences of two samplings of the same prompts.

A Fréchet distance is biased upwards by an amount that depends on how many distinct clips it sees, so a
resampled one is larger than the original. Two rules keep intervals honest. Every resample has the N of
the original, and both sides of a difference see the same prompts, so that their biases are alike and
cancel. What then remains is removed by using only the spread of the resampled values around their own
mean, put around the original value. Recall and its kin count neighbours, which a repeated clip would
fake: they are resampled by halves without repetition, whose spread equals that of the whole sample.

The reference is pinned and not resampled: an interval speaks of prompts and noise, given the reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sonarc.metrics.frechet import Floats, Gaussian, frechet_distance, gaussian, root

CONFIDENCE = 0.95
Weights = NDArray[np.float64]
Rows = NDArray[np.intp]


@dataclass(frozen=True)
class Interval:
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval is on one side of 0."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Resamples:
    """The same resamples for every row of an evaluation.

    Attributes:
        weights: bootstrap multiplicities `(R, N)`; each row sums to N.
        halves: distinct clips of one half of the prompts, R of them.
    """

    weights: Weights
    halves: Sequence[Rows]


def resamples(prompts: Sequence[str], count: int, seed: int) -> Resamples:
    """Draw resamples of clips by prompt: clips of one prompt stay together.

    Args:
        prompts: the prompt, or its name, of each of N clips.
        count: resamples R.
    """
    _, which = np.unique(np.asarray(prompts), return_inverse=True)
    clusters = int(which.max()) + 1
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(clusters, np.full(clusters, 1 / clusters), size=count)[:, which].astype(np.float64)
    weights = drawn * (len(which) / drawn.sum(axis=1, keepdims=True))
    order = rng.random((count, clusters)).argsort(axis=1)
    halves = [np.flatnonzero((rank < (clusters + 1) // 2)[which]) for rank in order]
    return Resamples(weights, halves)


def interval(value: float, resampled: Sequence[float] | Floats) -> Interval:
    """`value` with the spread of its resampled values around their own mean."""
    spread = np.asarray(resampled, dtype=np.float64)
    low, high = np.quantile(spread - spread.mean(), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(value, value + float(low), value + float(high))


def weighted_mean(values_N: Floats, draws: Resamples) -> Floats:
    """The mean of `values_N` in every bootstrap resample `(R,)`; NaN values are left out."""
    known = ~np.isnan(values_N)
    weights = draws.weights[:, known]
    total = weights.sum(axis=1)
    sums = weights @ np.asarray(values_N)[known]
    # A resample that drew no known value says nothing of its own.
    return np.where(total > 0, sums / np.maximum(total, 1e-12), np.nanmean(values_N))


def resampled_frechet(x_NE: Floats, reference: Gaussian, draws: Resamples) -> Floats:
    """The Fréchet distance of every bootstrap resample of `x_NE` to the reference `(R,)`."""
    half = root(reference.cov_EE)
    return np.array([frechet_distance(gaussian(x_NE, w_N), reference, half) for w_N in draws.weights])
