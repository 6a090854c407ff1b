"""Fréchet and kernel distance against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sonarc.contracts.errors import DataError
from sonarc.metrics.frechet import Gaussian, fit_pca, frechet_distance, gaussian, root
from sonarc.metrics.kid import kernel_distance

SEEDS = st.integers(0, 2**32 - 1)


def covariance(rng: np.random.Generator, size: int) -> np.ndarray:
    x = rng.standard_normal((3 * size, size))
    return x.T @ x / len(x)


@settings(max_examples=30)
@given(SEEDS, st.integers(1, 12))
def test_shifted_gaussians_are_as_far_apart_as_their_means(seed: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    cov, shift = covariance(rng, size), rng.standard_normal(size)
    a, b = Gaussian(np.zeros(size), cov), Gaussian(shift, cov)
    assert frechet_distance(a, b) == pytest.approx(shift @ shift, rel=1e-6, abs=1e-6)


@settings(max_examples=30)
@given(SEEDS, st.floats(0.1, 10))
def test_scaled_gaussians_have_a_closed_form(seed: int, scale: float) -> None:
    cov = covariance(np.random.default_rng(seed), 6)
    a, b = Gaussian(np.zeros(6), cov), Gaussian(np.zeros(6), scale**2 * cov)
    # tr(Σ + s²Σ - 2sΣ) = (1 - s)² tr Σ
    assert frechet_distance(a, b) == pytest.approx((1 - scale) ** 2 * np.trace(cov), rel=1e-6, abs=1e-6)


def test_commuting_covariances_have_a_closed_form() -> None:
    a = Gaussian(np.array([0.0, 1.0]), np.diag([4.0, 9.0]))
    b = Gaussian(np.array([3.0, 1.0]), np.diag([1.0, 16.0]))
    assert frechet_distance(a, b) == pytest.approx(9 + (2 - 1) ** 2 + (3 - 4) ** 2)


@settings(max_examples=20)
@given(SEEDS)
def test_the_distance_is_symmetric_and_zero_to_itself(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = (Gaussian(rng.standard_normal(5), covariance(rng, 5)) for _ in range(2))
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-8)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-8)
    assert frechet_distance(a, b, root(b.cov_EE)) == frechet_distance(a, b)


def test_a_singular_covariance_gives_a_finite_distance() -> None:
    few = np.random.default_rng(0).standard_normal((5, 20))
    distance = frechet_distance(gaussian(few), gaussian(few + 1))
    assert distance == pytest.approx(20, rel=1e-6)


def test_weights_count_rows_as_repetition_does() -> None:
    x = np.random.default_rng(0).standard_normal((6, 3))
    weights = np.array([2.0, 1, 0, 3, 1, 1])
    repeated = gaussian(np.repeat(x, weights.astype(int), axis=0))
    weighted = gaussian(x, weights)
    np.testing.assert_allclose(weighted.mean_E, repeated.mean_E)
    np.testing.assert_allclose(weighted.cov_EE, repeated.cov_EE)


@pytest.mark.parametrize("bad", [np.zeros((1, 3)), np.full((4, 3), np.nan), np.zeros(5)])
def test_what_has_no_gaussian_is_refused(bad: np.ndarray) -> None:
    with pytest.raises(DataError):
        gaussian(bad)


def test_pca_keeps_the_distance_within_the_span() -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((200, 3)) @ rng.standard_normal((3, 10))
    y = 1.5 * x
    pca = fit_pca(np.concatenate([x, y]), 8)
    assert pca.basis_EK.shape == (10, 3)
    whole = frechet_distance(gaussian(x), gaussian(y))
    assert frechet_distance(gaussian(pca(x)), gaussian(pca(y))) == pytest.approx(whole, rel=1e-4)


def test_pca_is_the_same_for_the_same_data() -> None:
    x = np.random.default_rng(2).standard_normal((50, 8))
    assert fit_pca(x, 4).sha256 == fit_pca(x.copy(), 4).sha256 != fit_pca(x + np.eye(50, 8), 4).sha256


def test_kernel_distance_is_unbiased_and_grows_with_a_shift() -> None:
    rng = np.random.default_rng(3)
    same = [kernel_distance(rng.standard_normal((40, 4)), rng.standard_normal((40, 4))) for _ in range(200)]
    assert abs(np.mean(same)) < 3 * np.std(same) / np.sqrt(len(same))
    x = rng.standard_normal((100, 4))
    assert kernel_distance(x, x + 2) > kernel_distance(x, x + 1) > 0.1
