"""Conditional diversity: how far apart several generations of one prompt lie (CCDS in the ARC paper)."""

from __future__ import annotations

import numpy as np

from sonarc.contracts.errors import DataError
from sonarc.metrics.frechet import Floats


def conditional_diversity(unit_PGE: Floats) -> Floats:
    """Mean pairwise cosine distance `(P,)` between the G generations of each of P prompts, in [0, 2].

    Args:
        unit_PGE: unit vectors of an audio-text model; 0 comes out where all generations are the same.

    Raises:
        DataError: fewer than two generations a prompt.
    """
    x = np.asarray(unit_PGE, dtype=np.float64)
    if x.ndim != 3 or x.shape[1] < 2:
        raise DataError(f"Embeddings of shape {x.shape} hold no pairs.", "Generate two or more a prompt.")
    cosine_PGG = x @ x.transpose(0, 2, 1)
    first, second = np.triu_indices(x.shape[1], k=1)
    return np.asarray(1 - cosine_PGG[:, first, second].mean(axis=1))
