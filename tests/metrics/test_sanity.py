"""Broken audio is counted, and stereo and spectrum are measured as they are."""

from __future__ import annotations

import numpy as np
import pytest
from sounds import RATE, noise, tone

from sonarc.metrics.sanity import sanity


def test_broken_clips_are_counted_once_each() -> None:
    silent, clipped, broken = tone(level=1e-5), np.clip(tone(level=3.0), -1, 1), tone()
    broken[0, 7] = np.nan
    found = sanity([tone(), noise(), silent, clipped, broken], RATE)
    assert (found.silent_fraction, found.clipped_fraction, found.nonfinite_fraction) == (0.2, 0.2, 0.2)


def test_figures_of_nothing_but_broken_clips_are_finite() -> None:
    figures = sanity([np.zeros((2, 100), np.float32)], RATE).as_dict()
    assert figures["silent_fraction"] == 1
    assert all(np.isfinite(value) for value in figures.values())


def test_mono_has_no_side_and_full_correlation() -> None:
    found = sanity([tone()], RATE)
    assert found.side_db == -60
    assert found.correlation == pytest.approx(1)


def test_independent_channels_have_as_much_side_as_mid() -> None:
    found = sanity([noise(2.0)], RATE)
    assert found.side_db == pytest.approx(0, abs=0.2)
    assert found.correlation == pytest.approx(0, abs=0.05)


def test_inverted_channels_are_found() -> None:
    clip = tone()
    clip[1] *= -1
    found = sanity([clip], RATE)
    assert found.correlation == pytest.approx(-1)
    assert found.side_db > 60


def test_roll_off_and_centroid_follow_the_pitch() -> None:
    found = sanity([tone(hz=1_000), tone(hz=4_000)], RATE)
    assert found.centroid_hz == pytest.approx(2_500, rel=0.05)
    assert found.centroid_spread_hz == pytest.approx(1_500, rel=0.05)
    assert sanity([noise(2.0)], RATE).rolloff_hz == pytest.approx(0.95 * RATE / 2, rel=0.02)
