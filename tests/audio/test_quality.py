"""What decoding does not notice: clipping, and bands that are not there."""

from __future__ import annotations

import numpy as np
import pytest
import soxr
from sounds import noise, tone

from sonarc.audio import Refused, Waveform, check_quality
from sonarc.audio.quality import bandwidth, clipped_share
from sonarc.contracts.config import DataConfig
from sonarc.contracts.dataset import Reason

RATE = 44_100


def resampled_up(rate: int) -> np.ndarray:
    low = noise(1.0)[:, :: RATE // rate]
    return np.ascontiguousarray(soxr.resample(low.T, rate, RATE, quality="HQ").T, dtype=np.float32)


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050])
def test_a_file_that_was_resampled_up_ends_where_its_old_band_did(rate: int) -> None:
    assert 0.8 * rate / 2 < bandwidth(resampled_up(rate), RATE) < 1.15 * rate / 2


def test_dull_and_pure_sounds_have_their_whole_band() -> None:
    t = np.arange(RATE) / RATE
    kick = np.sin(2 * np.pi * 50 * t) * np.exp(-6 * t)
    dull = np.cumsum(noise(1.0), axis=1)
    dull /= np.abs(dull).max()
    for sound in (noise(1.0), tone(1.0), np.stack([kick, kick]), dull, np.zeros((2, RATE)), noise(0.01)):
        assert bandwidth(sound.astype(np.float32), RATE) == RATE / 2


def test_cut_waves_are_told_from_whole_ones() -> None:
    whole = noise(1.0)
    assert clipped_share(whole) < 1e-4 and clipped_share(tone(1.0)) < 0.02
    cut = np.clip(4 * tone(1.0), -0.5, 0.5)
    assert clipped_share(cut.astype(np.float32)) > 0.2
    assert clipped_share(np.zeros((2, 100), np.float32)) == 0 and clipped_share(np.ones((1, 2), np.float32)) == 0


def test_damage_is_refused_by_the_configured_bounds() -> None:
    cut = Waveform(np.clip(20 * tone(1.0), -0.5, 0.5).astype(np.float32), RATE)
    telephone = Waveform(resampled_up(8_000), RATE)
    honest = Waveform(noise(1.0)[:, ::5], 8_820)
    with pytest.raises(Refused, match="cut off at its peak") as caught:
        check_quality(cut, DataConfig())
    assert caught.value.reason is Reason.CLIPPED
    with pytest.raises(Refused, match="spectrum ends at") as caught:
        check_quality(telephone, DataConfig())
    assert caught.value.reason is Reason.NARROW
    check_quality(honest, DataConfig())
    check_quality(cut, DataConfig(max_clipped=1.0))
    check_quality(telephone, DataConfig(min_bandwidth_hz=0))
