"""The objective given scores: closed forms, signs, weights."""

from __future__ import annotations

import math

import pytest
import torch
from torch.autograd import gradcheck

from sonarc.arc import losses

REAL = torch.tensor([[2.0, 0.5], [1.0, -1.0]])
FAKE = torch.tensor([[0.0, 0.5], [-1.0, 1.0]])


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def test_relativistic_losses_are_softplus_of_the_pair_difference() -> None:
    gaps = (REAL - FAKE).flatten().tolist()
    assert losses.relativistic_d(REAL, FAKE).item() == pytest.approx(sum(softplus(-g) for g in gaps) / 4)
    assert losses.relativistic_g(REAL, FAKE).item() == pytest.approx(sum(softplus(g) for g in gaps) / 4)


def test_a_perfect_discriminator_has_no_loss_and_an_undecided_one_log_two() -> None:
    high, low = torch.full((3, 2), 50.0), torch.full((3, 2), -50.0)
    assert losses.relativistic_d(high, low) < 1e-6
    assert losses.contrastive(high, low) < 1e-6
    assert losses.relativistic_d(high, high).item() == pytest.approx(math.log(2))


def test_the_two_sides_pull_in_opposite_directions() -> None:
    for d, g in ((losses.relativistic_d, losses.relativistic_g), (losses.lsgan_d, losses.lsgan_g)):
        fake = FAKE.clone().requires_grad_()
        pull_d = torch.autograd.grad(d(REAL, fake), fake)[0]
        pull_g = torch.autograd.grad(g(REAL, fake), fake)[0]
        # At the scores where least squares has D pull towards 0 and G towards 1, as the relativistic pair always does.
        chosen = (fake > 0) & (fake < 1)
        assert (pull_d[chosen] > 0).all() and (pull_g[chosen] < 0).all()


def test_relativistic_losses_do_not_see_a_common_shift() -> None:
    for loss in (losses.relativistic_d, losses.relativistic_g, losses.contrastive):
        torch.testing.assert_close(loss(REAL + 3, FAKE + 3), loss(REAL, FAKE))


def test_least_squares_targets_one_for_real_and_zero_for_fake() -> None:
    ones, zeros = torch.ones(2, 2), torch.zeros(2, 2)
    assert losses.lsgan_d(ones, zeros) == 0
    assert losses.lsgan_g(zeros, ones) == 0
    assert losses.lsgan_d(zeros, ones) == 2


def test_weights_leave_positions_out_of_the_mean() -> None:
    weight = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    expected = losses.relativistic_d(REAL[:, :1], FAKE[:, :1])
    torch.testing.assert_close(losses.relativistic_d(REAL, FAKE, weight), expected)


def test_a_term_without_any_weight_is_zero_with_zero_gradient() -> None:
    real = REAL.clone().requires_grad_()
    loss = losses.contrastive(real, FAKE, torch.zeros(2, 2))
    loss.backward()
    assert loss == 0 and not real.grad.any()


def test_penalty_sums_positions_and_averages_items() -> None:
    score, near = torch.zeros(2, 3), torch.tensor([[1.0, 2.0, 0.0], [0.0, 0.0, 3.0]])
    assert losses.approximate_penalty(score, near).item() == pytest.approx((5 + 9) / 2)
    masked = losses.approximate_penalty(score, near, torch.tensor([[1.0, 1, 1], [1, 1, 0]]))
    assert masked.item() == pytest.approx(5 / 2)


def test_penalty_approaches_the_gradient_norm() -> None:
    # For D(x) = w·x, E‖D(x + σn) − D(x)‖² = σ²‖w‖².
    torch.manual_seed(0)
    w, x, sigma = torch.randn(5), torch.randn(200_000, 5), 0.05
    near = x + sigma * torch.randn_like(x)
    found = losses.approximate_penalty((x @ w)[:, None], (near @ w)[:, None]) / sigma**2
    assert found.item() == pytest.approx(w.square().sum().item(), rel=0.02)


@pytest.mark.parametrize(
    "loss",
    [
        losses.relativistic_d,
        losses.relativistic_g,
        losses.contrastive,
        losses.lsgan_d,
        losses.lsgan_g,
        losses.approximate_penalty,
    ],
)
def test_gradients_are_those_of_the_formula(loss) -> None:
    real, fake = (x.double().requires_grad_() for x in (REAL, FAKE))
    weight = torch.tensor([[1.0, 0.5], [0.25, 0.0]], dtype=torch.float64)
    assert gradcheck(lambda r, f: loss(r, f, weight), (real, fake))
