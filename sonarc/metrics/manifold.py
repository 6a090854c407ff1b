"""Precision, recall, density and coverage: overlap of two sets as unions of k-nearest-neighbour balls.

Sources: Kynkäänniemi et al., *Improved Precision and Recall Metric*, NeurIPS 2019 (precision, recall);
Naeem et al., *Reliable Fidelity and Diversity Metrics*, ICML 2020 (density, coverage).
All depend on N and k: compare only at equal ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sonarc.contracts.errors import DataError
from sonarc.metrics.frechet import Floats

NEIGHBOURS = 5


@dataclass(frozen=True)
class Overlap:
    """How two sets overlap.

    Attributes:
        precision: share of generated clips inside a real clip's ball.
        recall: share of real clips inside a generated clip's ball.
        density: real balls a generated clip lies in, over k; 1 for equal distributions, may exceed it.
        coverage: share of real clips whose ball holds a generated clip.
    """

    precision: float
    recall: float
    density: float
    coverage: float


@dataclass(frozen=True)
class Distances:
    """Euclidean distances within and between a real and a generated set, from which overlaps of subsets are read.

    Attributes:
        k: neighbours that a ball reaches to.
    """

    real_RR: Floats
    generated_GG: Floats
    between_RG: Floats
    k: int

    @cached_property
    def real_radius_R(self) -> Floats:
        """Distance of each real clip to its k-th real neighbour."""
        return _radius(self.real_RR, self.k)


def distances(real_RE: Floats, generated_GE: Floats, *, k: int = NEIGHBOURS) -> Distances:
    """All distances of two sets of embeddings."""
    return Distances(
        _euclidean(real_RE, real_RE), _euclidean(generated_GE, generated_GE), _euclidean(real_RE, generated_GE), k
    )


def overlap(d: Distances, rows_G: NDArray[np.intp] | None = None) -> Overlap:
    """The overlap of the real set with the generated one, or with some of its rows.

    Args:
        rows_G: distinct rows of the generated set; none: all.

    Raises:
        DataError: a set has no more than k clips.
    """
    rows, k = np.arange(len(d.generated_GG)) if rows_G is None else rows_G, d.k
    if min(len(d.real_RR), len(rows)) <= k:
        raise DataError(
            f"{len(d.real_RR)} real and {len(rows)} generated clips have no {k}-th neighbours.", "Score more clips."
        )
    between_RG = d.between_RG[:, rows]
    generated_radius_G = _radius(d.generated_GG[np.ix_(rows, rows)], k)
    inside_real_RG = between_RG < d.real_radius_R[:, None]
    return Overlap(
        precision=float(inside_real_RG.any(axis=0).mean()),
        recall=float((between_RG < generated_radius_G[None, :]).any(axis=1).mean()),
        density=float(inside_real_RG.sum(axis=0).mean() / k),
        coverage=float(inside_real_RG.any(axis=1).mean()),
    )


def _radius(d_NN: Floats, k: int) -> Floats:
    # Position 0 of a sorted row is the clip itself.
    return np.asarray(np.partition(d_NN, k, axis=1)[:, k])


def _euclidean(x_NE: Floats, y_ME: Floats) -> Floats:
    x, y = np.asarray(x_NE, dtype=np.float64), np.asarray(y_ME, dtype=np.float64)
    squared = (x**2).sum(axis=1)[:, None] + (y**2).sum(axis=1)[None, :] - 2 * x @ y.T
    # Rounding leaves equal rows a hair apart; a distance to oneself is 0.
    d = np.sqrt(np.clip(squared, 0, None))
    if x_NE is y_ME:
        np.fill_diagonal(d, 0.0)
    return np.asarray(d)
