"""Figures on cases whose answer is known."""

from __future__ import annotations

import pytest
import torch

from sonarc.codec.fidelity import (
    average_spectrum_deviation,
    log_magnitude_distance,
    reconstruction_figures,
    si_sdr,
    side_energy_db,
)
from tests.codec.test_spectral import tiny_codec


def noise(count: int = 2, samples: int = 16_384, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 2, samples, generator=torch.Generator().manual_seed(seed)) * 0.1


def test_si_sdr_ignores_scale_and_measures_noise() -> None:
    x, other = noise(samples=1 << 16), noise(samples=1 << 16, seed=1)
    assert si_sdr(0.3 * x, x).min() > 80
    torch.testing.assert_close(si_sdr(x + 0.1 * other, x), torch.full((2,), 20.0), atol=0.3, rtol=0)


def test_log_magnitude_distance_of_a_gain_is_the_gain() -> None:
    x = noise()
    assert log_magnitude_distance(x, x).max() == 0
    torch.testing.assert_close(log_magnitude_distance(2 * x, x), torch.full((2,), 2.0).log(), atol=5e-3, rtol=0)


def test_a_gain_moves_every_third_octave_alike() -> None:
    x = noise()
    deviation = average_spectrum_deviation(0.5 * x, x, 44_100)
    assert deviation.shape == (26,)
    torch.testing.assert_close(deviation, torch.full((26,), -6.0206), atol=0.01, rtol=0)


def test_side_energy_of_known_mixtures() -> None:
    left = noise(1)[:, :1]
    mono, wide = torch.cat([left, left], 1), torch.cat([left, -left], 1)
    one_side = torch.cat([left, 0 * left], 1)
    assert side_energy_db(mono).item() == pytest.approx(-80, abs=1)
    assert side_energy_db(wide).item() > 60
    assert side_energy_db(one_side).item() == pytest.approx(0, abs=1e-3)


def test_the_figures_of_a_codec_count_what_is_wrong() -> None:
    codec = tiny_codec()
    figures = reconstruction_figures(codec, noise(3))
    assert figures["clips"] == 3 and figures["not_finite"] == 0
    with torch.no_grad():
        codec.decoder.head.bias.view(1, 2, 3, -1)[:, :, 0] = -30.0  # decodes silence
    assert reconstruction_figures(codec, noise(3))["silent"] == 3
    with torch.no_grad():
        codec.decoder.head.bias.view(1, 2, 3, -1)[:, :, 0] = 6.0  # decodes far above full scale
    assert reconstruction_figures(codec, noise(3))["clipped"] == 3
