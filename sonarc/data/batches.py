"""Which clips make up a batch: a pure function of seed and step, so that any worker count resumes exactly."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sonarc.contracts.errors import DataError


class BatchPlan:
    """Batches from shuffled decks of N cards, one deck after the other without a gap.

    With equal weights a deck holds every clip once; else a clip is in it N · weight / Σ weight times,
    rounded down or up by chance (systematic resampling), so that no draw strays far from its weight.

    Args:
        weights_N: how often each clip is drawn, relative to the others.
        batch: clips a step.
        seed: of the decks and of the choice of captions.

    Raises:
        DataError: no clips, or weights that are not positive and finite.
    """

    def __init__(self, weights_N: Sequence[float] | NDArray[np.float64], batch: int, seed: int) -> None:
        weights = np.asarray(weights_N, np.float64)
        if not len(weights) or not np.isfinite(weights).all() or not (weights > 0).all():
            raise DataError(
                f"Batches need clips with positive weights, not {len(weights)} with {weights[:4].tolist()}….",
                "Check the dataset's split and the weights of its sources.",
            )
        self.batch, self.seed = batch, seed
        self._shares_N = weights / weights.sum() * len(weights)
        self._deck = lru_cache(maxsize=4)(self._make_deck)

    def items(self, step: int) -> NDArray[np.int64]:
        """Indices of the `batch` clips of a step."""
        size = len(self._shares_N)
        deck, place = np.divmod(step * self.batch + np.arange(self.batch), size)
        return np.array([self._deck(int(d))[p] for d, p in zip(deck, place, strict=True)], np.int64)

    def caption(self, step: int, item: int, n: int) -> int:
        """Which of the clip's `n` captions is read at this step."""
        digest = hashlib.blake2b(f"{self.seed}/{step}/{item}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") % n

    def _make_deck(self, number: int) -> NDArray[np.int64]:
        random = np.random.default_rng([self.seed, number])
        edges = np.cumsum(self._shares_N)
        edges[-1] = len(edges)
        deck = np.searchsorted(edges, np.arange(len(edges)) + random.random(), side="right")
        random.shuffle(deck)
        return deck
