from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sonarc.contracts.errors import DataError
from sonarc.data import BatchPlan


@settings(max_examples=50)
@given(size=st.integers(1, 60), batch=st.integers(1, 80), seed=st.integers(0, 3), step=st.integers(0, 10_000))
def test_a_batch_is_a_function_of_seed_and_step(size: int, batch: int, seed: int, step: int) -> None:
    plan = BatchPlan(np.ones(size), batch, seed)
    items = plan.items(step)
    plan.items(0)
    np.testing.assert_array_equal(plan.items(step), items)
    np.testing.assert_array_equal(BatchPlan([3.0] * size, batch, seed).items(step), items)
    assert items.shape == (batch,)
    assert 0 <= items.min() <= items.max() < size


@settings(max_examples=30)
@given(size=st.integers(1, 40), batch=st.integers(1, 15))
def test_equal_weights_show_every_clip_once_a_deck(size: int, batch: int) -> None:
    plan = BatchPlan(np.ones(size), batch, 0)
    seen = np.concatenate([plan.items(step) for step in range(3 * size)])
    for deck in range(len(seen) // size):
        assert sorted(seen[deck * size : (deck + 1) * size]) == list(range(size))


def test_weights_are_kept_within_one_draw_a_deck() -> None:
    weights = np.array([1.0, 1.0, 2.5, 0.25, 5.0] * 4)
    plan = BatchPlan(weights, len(weights), 1)
    expected = weights / weights.sum() * len(weights)
    drawn = np.array([np.bincount(plan.items(step), minlength=len(weights)) for step in range(400)])
    assert (np.abs(drawn - expected) < 1).all()
    np.testing.assert_allclose(drawn.mean(axis=0), expected, atol=0.1)


def test_seeds_and_decks_differ() -> None:
    plan = BatchPlan(np.ones(50), 50, 0)
    assert plan.items(0).tolist() != plan.items(1).tolist()
    assert plan.items(0).tolist() != BatchPlan(np.ones(50), 50, 1).items(0).tolist()


def test_captions_take_turns_by_chance_but_repeatably() -> None:
    plan = BatchPlan([1.0], 1, 7)
    chosen = [plan.caption(step, item=3, n=4) for step in range(400)]
    assert chosen == [BatchPlan([1.0], 1, 7).caption(step, item=3, n=4) for step in range(400)]
    assert np.bincount(chosen, minlength=4).min() > 60
    assert plan.caption(0, item=0, n=1) == 0


@pytest.mark.parametrize("weights", [[], [0.0, 1.0], [-1.0], [float("nan")], [float("inf")]])
def test_weights_that_cannot_be_drawn_are_refused(weights: list[float]) -> None:
    with pytest.raises(DataError):
        BatchPlan(weights, 4, 0)
