"""Intervals hold what they promise, on toys whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from sonarc.metrics.bootstrap import interval, resampled_frechet, resamples, weighted_mean
from sonarc.metrics.frechet import Gaussian, frechet_distance, gaussian


def test_resamples_keep_the_number_of_clips_and_prompts_together() -> None:
    draws = resamples(["a", "a", "b", "b", "c", "c"], 50, seed=0)
    np.testing.assert_allclose(draws.weights.sum(axis=1), 6)
    np.testing.assert_array_equal(draws.weights[:, ::2], draws.weights[:, 1::2])
    assert draws.weights.std() > 0
    for rows in draws.halves:
        assert len(rows) == len(set(rows.tolist())) == 4
        assert set((rows // 2 * 2).tolist()) | set((rows // 2 * 2 + 1).tolist()) == set(rows.tolist())


def test_equal_seeds_draw_equal_resamples() -> None:
    names = [str(n) for n in range(20)]
    a, b, c = (resamples(names, 5, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(a.weights, b.weights)
    assert not np.array_equal(a.weights, c.weights)


def test_the_interval_of_a_mean_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    draws = resamples([str(n) for n in range(60)], 200, seed=1)
    covered = 0
    for _ in range(200):
        x = rng.standard_normal(60)
        found = interval(float(x.mean()), weighted_mean(x, draws))
        covered += found.low <= 0 <= found.high
    assert 0.88 <= covered / 200 <= 0.99


def test_halves_spread_as_much_as_the_whole_sample() -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal(100)
    draws = resamples([str(n) for n in range(100)], 400, seed=2)
    spread = np.std([x[rows].mean() for rows in draws.halves])
    assert spread == pytest.approx(0.1, rel=0.25)


def test_the_bias_of_a_resampled_distance_cancels() -> None:
    """Without re-centring, the interval would lie above the distance itself: resamples repeat clips."""
    rng = np.random.default_rng(2)
    x = rng.standard_normal((60, 16))
    reference = Gaussian(np.zeros(16), np.eye(16))
    value = frechet_distance(gaussian(x), reference)
    drawn = resampled_frechet(x, reference, resamples([str(n) for n in range(60)], 200, seed=3))
    assert drawn.min() > value
    found = interval(value, drawn)
    assert found.low < value < found.high


@pytest.mark.parametrize(("scale", "differs"), [(1.0, False), (1.5, True)])
def test_a_paired_difference_excludes_zero_only_where_there_is_one(scale: float, differs: bool) -> None:
    rng = np.random.default_rng(4)
    reference = Gaussian(np.zeros(4), np.eye(4))
    draws = resamples([str(n) for n in range(150)], 200, seed=5)
    a, b = rng.standard_normal((150, 4)), scale * rng.standard_normal((150, 4))
    value = frechet_distance(gaussian(a), reference) - frechet_distance(gaussian(b), reference)
    found = interval(value, resampled_frechet(a, reference, draws) - resampled_frechet(b, reference, draws))
    assert found.excludes_zero is differs
    assert (found.high < 0) is differs


def test_pairing_narrows_the_interval() -> None:
    rng = np.random.default_rng(6)
    draws = resamples([str(n) for n in range(100)], 200, seed=7)
    prompt_effect = rng.standard_normal(100)
    a, b = (prompt_effect + 0.1 * rng.standard_normal(100) for _ in range(2))
    paired = interval(0.0, weighted_mean(a, draws) - weighted_mean(b, draws))
    alone = interval(0.0, weighted_mean(a, draws))
    assert paired.high - paired.low < 0.5 * (alone.high - alone.low)
