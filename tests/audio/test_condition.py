from __future__ import annotations

import numpy as np
import pyloudnorm
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sounds import RATE, noise, tone

from sonarc.audio import Refused, Segment, Waveform, condition, to_stereo
from sonarc.contracts.config import AudioConfig, DataConfig
from sonarc.contracts.dataset import Reason

AUDIO = AudioConfig(samples=32_768)
DATA = DataConfig()
CLIP_S = 32_768 / RATE


def clips(audio_AS: np.ndarray, rate: int = RATE, **settings: float) -> list[Segment]:
    return condition(Waveform(audio_AS.astype(np.float32), rate), AUDIO, DATA.model_copy(update=settings))


def lufs(audio_AS: np.ndarray) -> float:
    return float(pyloudnorm.Meter(RATE).integrated_loudness(audio_AS.T.astype(np.float64)))


def reason_of(audio_AS: np.ndarray) -> Reason:
    with pytest.raises(Refused) as caught:
        clips(audio_AS)
    return caught.value.reason


def test_mono_goes_to_both_sides_and_surround_is_folded_down() -> None:
    mono = tone(channels=1)
    np.testing.assert_array_equal(to_stereo(mono), np.concatenate([mono, mono]))
    only = np.zeros((6, 10), np.float32)
    only[2] = 1.0  # centre
    np.testing.assert_allclose(to_stereo(only), np.full((2, 10), 0.5**0.5), rtol=1e-6)
    only[:] = 0
    only[4] = 1.0  # left surround
    np.testing.assert_allclose(to_stereo(only)[:, 0], [0.5**0.5, 0.0], rtol=1e-6)
    only[:] = 0
    only[3] = 1.0  # the low-frequency channel is no part of a downmix
    assert not to_stereo(only).any()


@pytest.mark.parametrize("rate", [8_000, 22_050, 48_000, 96_000, 192_000])
def test_resampling_keeps_pitch_and_length(rate: int) -> None:
    (clip,) = clips(tone(0.5, hz=1_000, rate=rate), rate)
    assert abs(clip.frames - 0.5 * RATE) <= 8  # a sample or two below the threshold at its edges
    spectrum = np.abs(np.fft.rfft(clip.audio_AS[0]))
    assert np.argmax(spectrum) * RATE / clip.frames == pytest.approx(1_000, abs=3)


def test_every_clip_has_the_asked_loudness() -> None:
    for level in (0.002, 0.05, 0.5):
        (clip,) = clips(tone(0.7, level=level))
        assert lufs(clip.audio_AS) == pytest.approx(DATA.loudness_lufs, abs=0.1)
        assert clip.loudness == pytest.approx(lufs(tone(0.7, level=level)), abs=0.1)


def test_the_peak_ceiling_comes_before_loudness() -> None:
    hit = noise(0.7, level=0.02)
    hit[:, 1_000:1_040] = 0.9
    (clip,) = clips(hit)
    assert np.abs(clip.audio_AS).max() == pytest.approx(10 ** (DATA.peak_dbfs / 20), rel=1e-4)
    assert lufs(clip.audio_AS) < DATA.loudness_lufs


def test_a_clip_shorter_than_a_loudness_block_is_levelled_too() -> None:
    (clip,) = clips(tone(0.1))
    assert clip.frames == pytest.approx(0.1 * RATE, abs=80)
    padded = np.zeros((2, round(0.4 * RATE)), np.float32)
    padded[:, : clip.frames] = clip.audio_AS
    assert lufs(padded) == pytest.approx(DATA.loudness_lufs, abs=0.1)


def test_a_constant_offset_goes_and_alone_is_silence() -> None:
    (clip,) = clips(tone(0.7) + 0.25)
    assert abs(clip.audio_AS.mean()) < 1e-3
    assert reason_of(np.full((2, RATE), 0.25)) is Reason.SILENT


def test_silence_is_refused_and_trimmed() -> None:
    assert reason_of(np.zeros((2, RATE))) is Reason.SILENT
    assert reason_of(noise(level=1e-5)) is Reason.SILENT
    quiet = np.zeros((2, RATE), np.float32)
    quiet[:, 10_000:20_000] = noise(1.0)[:, :10_000]
    (clip,) = clips(quiet)
    assert clip.frames == pytest.approx(10_000, abs=20)
    assert clip.start_s == pytest.approx(10_000 / RATE, abs=1e-3)


def test_too_short_is_judged_after_trimming() -> None:
    click = np.zeros((2, RATE), np.float32)
    click[:, 5_000:5_500] = 0.5
    assert reason_of(click) is Reason.TOO_SHORT


def test_a_long_file_is_cut_without_slivers() -> None:
    assert [clip.frames for clip in clips(noise(2.1 * CLIP_S))] == [32_768, 32_768]
    lengths = [clip.frames for clip in clips(noise(2.5 * CLIP_S))]
    assert lengths[:2] == [32_768, 32_768]
    assert lengths[2] == pytest.approx(16_384, abs=2)


def test_a_very_long_file_gives_clips_from_all_over_it() -> None:
    found = clips(noise(30 * CLIP_S), max_segments=4)
    assert len(found) == 4
    starts = [clip.start_s / CLIP_S for clip in found]
    assert starts == pytest.approx([0, 29 / 3, 58 / 3, 29], abs=0.01)


def test_pauses_and_last_remains_of_a_decay_are_left_out() -> None:
    sound = noise(4 * CLIP_S)
    sound[:, 32_768 : 2 * 32_768] = 0
    sound[:, 3 * 32_768 :] *= 0.02
    assert [round(clip.start_s / CLIP_S) for clip in clips(sound)] == [0, 2]


def test_cuts_are_faded_but_an_attack_stays() -> None:
    sound = tone(2 * CLIP_S, hz=500)
    sound = np.roll(sound, 22, axis=1)  # begins near a crest
    first, second = clips(sound)
    assert np.abs(first.audio_AS[:, :30]).max() > 0.5 * np.abs(first.audio_AS).max()
    for clip, edge in ((first, -1), (second, 0), (second, -1)):
        assert np.abs(clip.audio_AS[:, edge]).max() < 1e-3 * np.abs(clip.audio_AS).max()


@settings(max_examples=40)
@given(
    seconds=st.floats(0.01, 4.0),
    rate=st.sampled_from([8_000, 32_000, 44_100, 48_000]),
    channels=st.integers(1, 8),
    level=st.sampled_from([1e-6, 1e-3, 0.5, 1.0, 50.0, 1e30]),
    seed=st.integers(0, 5),
)
def test_clips_are_always_stereo_bounded_and_within_the_length(
    seconds: float, rate: int, channels: int, level: float, seed: int
) -> None:
    sound = level * np.random.default_rng(seed).standard_normal((channels, max(1, round(seconds * rate))))
    try:
        found = clips(sound.astype(np.float32), rate)
    except Refused as refused:
        assert refused.reason in (Reason.SILENT, Reason.TOO_SHORT)
        return
    assert 1 <= len(found) <= DATA.max_segments
    for clip in found:
        assert clip.audio_AS.dtype == np.float32
        assert clip.audio_AS.shape == (2, clip.frames)
        assert 0 < clip.frames <= AUDIO.samples
        assert np.isfinite(clip.audio_AS).all()
        assert np.isfinite(clip.loudness)
        assert np.abs(clip.audio_AS).max() <= 10 ** (DATA.peak_dbfs / 20) + 1e-5
