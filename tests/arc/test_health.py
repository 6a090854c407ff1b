"""Early warnings."""

from __future__ import annotations

import math

import torch

from sonarc.arc import Health
from sonarc.arc.health import std_ratio, variety


def test_a_healthy_run_gives_no_warning() -> None:
    health = Health()
    for _ in range(50):
        assert health.update({"score_gap": 0.4, "std_ratio": 0.97, "grad_norm_g": 8.0}) == []


def test_each_sign_is_named_once_with_a_remedy() -> None:
    health = Health()
    (gap,) = health.update({"score_gap": 9.0})
    assert "score gap 9.00" in gap and "penalty_weight" in gap
    assert health.update({"score_gap": 9.0}) == []
    (collapse,) = health.update({"std_ratio": 0.2})
    assert "0.20" in collapse


def test_one_bad_step_is_smoothed_away() -> None:
    health = Health()
    health.update({"grad_norm_g": 5.0})
    assert health.update({"grad_norm_g": 200.0}) == []


def test_a_value_that_is_not_finite_is_named() -> None:
    (warning,) = Health().update({"loss_d": math.nan, "score_gap": 0.1})
    assert "loss_d" in warning


def test_std_ratio_looks_at_true_frames_only() -> None:
    torch.manual_seed(0)
    real = torch.randn(8, 16, 32)
    fake = 0.5 * real
    mask = torch.arange(32).expand(8, -1) < 24
    fake[:, :, 24:] = 1000.0
    assert abs(std_ratio(fake, real, mask).item() - 0.5) < 0.01


def test_clips_that_become_alike_are_seen_though_their_spread_is_that_of_real_ones() -> None:
    torch.manual_seed(0)
    level = torch.randn(8, 16, 1)
    real, mask = level + torch.randn(8, 16, 32), torch.ones(8, 32, dtype=torch.bool)
    alike = real[:1].expand_as(real) * real.std() / real[:1].std()
    assert std_ratio(alike, real, mask).item() > 0.9
    assert variety(alike, real, mask).item() < 1e-3
    assert abs(variety(real.flip(0), real, mask).item() - 1) < 1e-5
    assert variety(alike[:1], real[:1], mask[:1]).item() == 1
    (warning,) = Health().update({"variety": 0.1})
    assert "0.10" in warning and "alike" in warning


def test_variety_looks_at_true_frames_only() -> None:
    torch.manual_seed(0)
    real, mask = torch.randn(4, 8, 32), torch.arange(32).expand(4, -1) < 24
    fake = real.clone()
    fake[:, :, 24:] = 1000.0 * torch.randn(4, 8, 8)
    assert abs(variety(fake, real, mask).item() - 1) < 1e-5
