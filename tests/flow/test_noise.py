"""Noise levels: inside (0, 1), repeatable, distributed as named."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sonarc.contracts.config import NoiseConfig
from sonarc.contracts.errors import ConfigError
from sonarc.flow import sample_noise_levels
from sonarc.flow.noise import TRUNCATION

NAMES = ["uniform", "logit_normal", "truncated_logit_normal", "mixture", "logsnr_uniform"]
MANY = 40_000


def draw(config: NoiseConfig, count: int = MANY, seed: int = 0) -> torch.Tensor:
    return sample_noise_levels(config, count, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", NAMES)
@given(mean=st.floats(-3, 3), std=st.floats(0.1, 4), seed=st.integers(0, 9))
@settings(max_examples=10)
def test_levels_are_inside_and_repeatable(name: str, mean: float, std: float, seed: int) -> None:
    config = NoiseConfig(name=name, mean=mean, std=std)
    t_B = draw(config, 500, seed)
    assert t_B.shape == (500,)
    assert ((t_B > 0) & (t_B < 1)).all()
    assert torch.equal(t_B, draw(config, 500, seed))


def test_logit_normal_has_its_median_and_quartiles() -> None:
    t_B = draw(NoiseConfig(name="logit_normal", mean=-0.3, std=1.0))
    assert float(t_B.median()) == pytest.approx(1 / (1 + math.exp(0.3)), abs=0.01)
    assert float(torch.logit(t_B).std()) == pytest.approx(1.0, abs=0.02)


def test_logsnr_is_uniform_between_its_bounds() -> None:
    logsnr = -torch.logit(draw(NoiseConfig(name="logsnr_uniform")))
    assert float(logsnr.min()) >= -6.01
    assert float(logsnr.max()) <= 2.01
    assert float(logsnr.mean()) == pytest.approx(-2.0, abs=0.05)
    assert float(logsnr.std()) == pytest.approx(8 / math.sqrt(12), abs=0.05)


def test_the_truncated_logit_normal_is_the_cut_one_stretched_and_mirrored() -> None:
    plain = draw(NoiseConfig(name="logit_normal"))
    kept = (plain[plain > TRUNCATION] - TRUNCATION) / (1 - TRUNCATION)
    t_B = draw(NoiseConfig(name="truncated_logit_normal"), seed=1)
    for quantile in (0.02, 0.1, 0.5, 0.9, 0.98):
        assert float(t_B.quantile(quantile)) == pytest.approx(1 - float(kept.quantile(1 - quantile)), abs=0.01)


def test_the_mixture_has_its_share() -> None:
    t_B = draw(NoiseConfig(name="mixture", mean=0.0, std=0.05, share=0.75))
    near = float(((t_B > 0.4) & (t_B < 0.6)).float().mean())
    assert near == pytest.approx(0.75 + 0.25 * 0.2, abs=0.01)


def test_an_empty_range_is_refused() -> None:
    with pytest.raises(ConfigError, match="empty"):
        draw(NoiseConfig(name="logsnr_uniform", logsnr_min=2, logsnr_max=2))
