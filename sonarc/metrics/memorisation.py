"""Does a model copy? How near generated clips lie to their nearest train clip, against how near real held-out ones do.

A model that memorises lies nearer to the train clips than new real clips do. Source: the nearest-neighbour checks of
Meehan et al., *A Non-Parametric Test to Detect Data-Copying*, AISTATS 2020.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sonarc.contracts.errors import DataError
from sonarc.metrics.frechet import Floats

AT_ONCE = 256


@dataclass(frozen=True)
class Nearness:
    """Cosine similarity of clips to their nearest train clip.

    Attributes:
        median, high: median and 99th percentile.
        beyond: share of clips that lie nearer than 99 of 100 real held-out clips do; .01 is what real clips give.
    """

    median: float
    high: float
    beyond: float


def nearest(x_NE: Floats, train_ME: Floats) -> Floats:
    """Cosine similarity `(N,)` of each clip to the nearest of M train clips.

    Raises:
        DataError: no train clips, or another width.
    """
    x, train = _unit(x_NE), _unit(train_ME)
    if not len(train) or x.shape[1] != train.shape[1]:
        raise DataError(f"Vectors of shapes {x.shape} and {train.shape} cannot be compared.", "Use one space.")
    parts = [(x[start : start + AT_ONCE] @ train.T).max(axis=1) for start in range(0, len(x), AT_ONCE)]
    return np.concatenate(parts)


def nearness(similarity_N: Floats, real_N: Floats) -> Nearness:
    """What nearest similarities of generated clips say beside those of real held-out clips."""
    return Nearness(
        median=float(np.median(similarity_N)),
        high=float(np.quantile(similarity_N, 0.99)),
        beyond=float((similarity_N > np.quantile(real_N, 0.99)).mean()),
    )


def _unit(x_NE: Floats) -> Floats:
    x = np.asarray(x_NE, dtype=np.float64)
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12))
