"""Wrong prompts: properties over random batches."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sonarc.arc import mismatch

clips = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=24)
"""(concept, take of that concept, wording of that concept)."""


def batch(drawn: list[tuple[int, int, int]]) -> tuple[list[str], list[str], list[str]]:
    concepts = [f"concept {c}" for c, _, _ in drawn]
    keys = [f"key {c}.{k}" for c, k, _ in drawn]
    captions = [f"wording {w} of {c}" for c, _, w in drawn]
    return concepts, keys, captions


@given(drawn=clips, seed=st.integers(0, 2**32))
def test_every_valid_prompt_differs_in_concept_key_and_wording(drawn, seed: int) -> None:
    concepts, keys, captions = batch(drawn)
    found = mismatch(concepts, keys, captions, np.random.default_rng(seed))
    assert sorted(found.order_B) == list(range(len(drawn)))
    for clip, (prompt, valid) in enumerate(zip(found.order_B, found.valid_B, strict=True)):
        differs = all(names[clip] != names[prompt] for names in (concepts, keys, captions))
        assert valid == differs


@given(drawn=clips, seed=st.integers(0, 2**32))
def test_as_many_items_are_matched_as_the_batch_admits(drawn, seed: int) -> None:
    concepts, keys, captions = batch(drawn)
    found = mismatch(concepts, keys, captions, np.random.default_rng(seed))
    # A concept in more than half of the batch cannot give all of its clips another's prompt, nor
    # the others' clips more prompts than they are: 2 (n - m) items can be matched.
    size, largest = len(drawn), Counter(concepts).most_common(1)[0][1]
    assert found.unmatched == max(0, 2 * largest - size)


@given(drawn=clips, seed=st.integers(0, 2**32), shared=st.integers(0, 23))
def test_a_wording_shared_by_two_concepts_is_no_negative(drawn, seed: int, shared: int) -> None:
    concepts, keys, captions = batch(drawn)
    captions[shared % len(drawn)] = captions[0]
    found = mismatch(concepts, keys, captions, np.random.default_rng(seed))
    for clip in np.flatnonzero(found.valid_B):
        assert captions[clip] != captions[found.order_B[clip]]


def test_a_batch_of_one_and_a_batch_of_one_concept_have_no_negatives() -> None:
    rng = np.random.default_rng(0)
    assert mismatch(["a"], ["1"], ["x"], rng).unmatched == 1
    assert mismatch(["a"] * 3, ["1", "2", "3"], ["x", "y", "z"], rng).unmatched == 3


def test_a_batch_of_two_concepts_is_swapped() -> None:
    found = mismatch(["a", "b"], ["1", "2"], ["x", "y"], np.random.default_rng(0))
    assert found.order_B.tolist() == [1, 0] and found.unmatched == 0


def test_the_choice_varies_with_the_source_of_chance_and_repeats_with_it() -> None:
    names = [str(i) for i in range(16)]
    orders = [mismatch(names, names, names, np.random.default_rng(s)).order_B.tolist() for s in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
