"""Loudness: the same as pyloudnorm's, at every rate, level and length."""

from __future__ import annotations

import math

import numpy as np
import pyloudnorm
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sonarc.audio.level import integrated_loudness


@given(
    rate=st.sampled_from([8_000, 16_000, 22_050, 44_100, 48_000, 96_000]),
    seconds=st.floats(0.41, 3.0),
    level=st.floats(1e-3, 1.0),
    channels=st.sampled_from([1, 2]),
    seed=st.integers(0, 2**31),
)
def test_it_is_what_pyloudnorm_says(rate: int, seconds: float, level: float, channels: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    audio_AS = level * random.standard_normal((channels, math.ceil(seconds * rate)))
    audio_AS *= np.interp(np.arange(audio_AS.shape[1]), np.linspace(0, audio_AS.shape[1], 8), random.uniform(0, 1, 8))
    expected = float(pyloudnorm.Meter(rate).integrated_loudness(audio_AS.T))
    assert integrated_loudness(audio_AS, rate) == pytest.approx(expected, abs=1e-6)


def test_a_tone_of_full_scale_has_its_known_loudness() -> None:
    # BS.1770-4: a sine of 997 Hz at 0 dBFS in one channel measures -3.01 LUFS; pyloudnorm's filters are that near.
    tone_S = np.sin(2 * np.pi * 997 * np.arange(48_000) / 48_000)
    assert integrated_loudness(tone_S[None], 48_000) == pytest.approx(-3.01, abs=0.05)


def test_silence_has_none() -> None:
    assert integrated_loudness(np.zeros((2, 20_000)), 44_100) == -math.inf
