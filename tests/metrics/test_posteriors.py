"""KL over class posteriors, on cases with known answers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sonarc.contracts.errors import DataError
from sonarc.metrics.posteriors import posterior_divergence


def test_the_same_posteriors_do_not_diverge_whatever_their_sum() -> None:
    real = np.random.default_rng(0).random((5, 9))
    assert posterior_divergence(real, real) == pytest.approx(np.zeros(5), abs=1e-12)
    assert posterior_divergence(real, real / 2) == pytest.approx(np.zeros(5), abs=1e-12)


def test_two_classes_have_a_closed_form() -> None:
    found = posterior_divergence(np.array([[0.5, 0.5], [0.9, 0.1]]), np.array([[0.9, 0.1], [0.5, 0.5]]))
    assert found == pytest.approx([0.5 * np.log(25 / 9), 0.9 * np.log(1.8) + 0.1 * np.log(0.2)])


def test_permuted_pairs_diverge_more_than_matched_ones() -> None:
    rng = np.random.default_rng(1)
    real = rng.random((40, 30)) ** 8
    near = np.clip(real + 0.01 * rng.random(real.shape), 0, 1)
    assert posterior_divergence(real, near).mean() < 0.3 * posterior_divergence(real, np.roll(near, 1, axis=0)).mean()


def test_a_class_that_is_wholly_missed_costs_much_and_not_without_end() -> None:
    (found,) = posterior_divergence(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]))
    assert 10 < found < 20


@given(st.integers(0, 2**32 - 1))
def test_it_is_never_negative(seed: int) -> None:
    rng = np.random.default_rng(seed)
    assert (posterior_divergence(rng.random((4, 6)), rng.random((4, 6))) >= -1e-12).all()


@pytest.mark.parametrize(
    ("real", "generated", "told"),
    [
        (np.zeros((2, 3)), np.zeros((3, 3)), r"\(2, 3\) and \(3, 3\)"),
        (np.zeros(3), np.zeros(3), "no pairs"),
        (np.full((1, 2), 1.5), np.zeros((1, 2)), "outside"),
        (np.zeros((1, 2)), np.full((1, 2), np.nan), "outside"),
    ],
)
def test_what_is_no_pair_of_posteriors_is_refused(real: np.ndarray, generated: np.ndarray, told: str) -> None:
    with pytest.raises(DataError, match=told):
        posterior_divergence(real, generated)
