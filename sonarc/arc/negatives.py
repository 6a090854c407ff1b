"""Wrong prompts for the contrastive term: a permutation of the batch that leaves no clip a prompt that fits it.

Shuffling captions is not enough: two clips of one concept have captions that differ only in wording, and
teaching D that such a caption does not match teaches it nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment


@dataclass(frozen=True)
class Negatives:
    """`order_B[i]` is the item whose prompt clip i is shown; `valid_B[i]` whether that prompt is truly wrong."""

    order_B: np.ndarray
    valid_B: np.ndarray

    @property
    def unmatched(self) -> int:
        """Items without a wrong prompt: they are left out of the contrastive term."""
        return int((~self.valid_B).sum())


def mismatch(
    concepts: Sequence[str], keys: Sequence[str], captions: Sequence[str], rng: np.random.Generator
) -> Negatives:
    """A random permutation with as many wrong prompts as the batch admits.

    A prompt is wrong for a clip if its item differs in concept and in key, and its wording differs too (one
    short caption may serve several concepts). The permutation is a minimum-cost assignment: a fitting prompt
    costs more than any number of wrong ones, and random costs choose among the best.

    Args:
        concepts: the structured facts behind each caption, length B.
        keys: the clips' keys.
        captions: the wordings shown to the model.
        rng: the source of the choice.
    """
    fits_BB = _equal(concepts) | _equal(keys) | _equal(captions)
    size = len(concepts)
    clip_B, prompt_B = linear_sum_assignment(fits_BB * float(size) + rng.random((size, size)))
    order_B = np.empty(size, dtype=np.int64)
    order_B[clip_B] = prompt_B
    return Negatives(order_B, ~fits_BB[np.arange(size), order_B])


def _equal(names: Sequence[str]) -> np.ndarray:
    array = np.asarray(names, dtype=object)
    return np.asarray(array[:, None] == array[None, :], dtype=bool)
