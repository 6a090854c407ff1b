"""Precision, recall, density and coverage in cases whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from sonarc.contracts.errors import DataError
from sonarc.metrics.diversity import conditional_diversity
from sonarc.metrics.manifold import Overlap, distances, overlap


def measured(real: np.ndarray, generated: np.ndarray, k: int = 5) -> Overlap:
    return overlap(distances(real, generated, k=k))


def test_equal_sets_overlap_wholly() -> None:
    x = np.random.default_rng(0).standard_normal((60, 4))
    found = measured(x, x.copy())
    assert (found.precision, found.recall, found.coverage) == (1, 1, 1)


def test_the_same_distribution_overlaps_almost_wholly() -> None:
    rng = np.random.default_rng(1)
    found = measured(rng.standard_normal((400, 3)), rng.standard_normal((400, 3)))
    assert found.precision > 0.9 and found.recall > 0.9 and found.coverage > 0.9
    assert found.density == pytest.approx(1, abs=0.15)


def test_sets_far_apart_do_not_overlap() -> None:
    rng = np.random.default_rng(2)
    found = measured(rng.standard_normal((50, 4)), rng.standard_normal((50, 4)) + 100)
    assert found == Overlap(0, 0, 0, 0)


def test_a_collapsed_set_is_precise_and_recalls_nothing() -> None:
    rng = np.random.default_rng(3)
    real = rng.standard_normal((200, 4))
    collapsed = 1e-3 * rng.standard_normal((200, 4))
    found = measured(real, collapsed)
    assert found.precision > 0.95
    assert found.recall < 0.02
    assert found.coverage < 0.2


def test_one_lost_mode_of_two_halves_recall() -> None:
    rng = np.random.default_rng(4)
    modes = rng.standard_normal((200, 3)) + np.repeat([[0.0], [50.0]], 100, axis=0)
    found = measured(modes, rng.standard_normal((200, 3)))
    assert found.recall == pytest.approx(0.5, abs=0.05)
    assert found.precision > 0.9


def test_distances_count_three_points_on_a_line() -> None:
    line = np.array([[0.0], [1.0], [3.0]])
    found = measured(line, np.array([[0.5], [10.0], [20.0]]), k=1)
    # Real balls have radii 1, 1, 2: the first two hold 0.5, and so does no other. Generated ones 9.5, 9.5, 10.
    assert found == Overlap(precision=1 / 3, recall=1.0, density=2 / 3, coverage=2 / 3)


def test_a_subset_is_read_from_the_same_distances() -> None:
    rng = np.random.default_rng(5)
    real, generated = rng.standard_normal((30, 2)), rng.standard_normal((40, 2))
    rows = np.arange(0, 40, 2)
    assert overlap(distances(real, generated), rows) == measured(real, generated[rows])


def test_too_few_clips_are_refused() -> None:
    with pytest.raises(DataError, match="5 real"):
        measured(np.zeros((5, 2)), np.zeros((9, 2)))


def test_diversity_is_zero_for_copies_and_one_for_orthogonal_generations() -> None:
    copies = np.repeat(np.eye(4)[:2, None], 3, axis=1)
    assert conditional_diversity(copies) == pytest.approx([0, 0])
    assert conditional_diversity(np.eye(4)[None, :3]) == pytest.approx([1])
    with pytest.raises(DataError):
        conditional_diversity(np.ones((2, 1, 4)))
