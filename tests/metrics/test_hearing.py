"""What signal processing hears, on sounds whose pitch, key, beat and length are known."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sonarc.metrics.hearing import FEATURES, ONSETS, agreement, hear
from sonarc.metrics.pitch import cents, pitch_of

RATE = 44_100


def _note(hertz: float, seconds: float, partials: int = 6) -> np.ndarray:
    t = np.arange(int(seconds * RATE)) / RATE
    return sum(np.sin(2 * np.pi * hertz * k * t) / k for k in range(1, partials + 1)) * 0.1


def _stereo(mono: np.ndarray) -> np.ndarray:
    return np.stack([mono, mono]).astype(np.float32)


@settings(max_examples=25)
@given(st.floats(60.0, 1_500.0))
def test_the_pitch_of_a_note_is_found_within_eight_cents(hertz: float) -> None:
    partials = max(1, min(6, int(9_000 / hertz)))
    found = pitch_of(_stereo(_note(hertz, 0.6, partials)), RATE)
    assert found.voiced > 0.8
    assert np.nanmedian(np.abs(cents(found.hertz_N, np.full_like(found.hertz_N, hertz)))) < 8


def test_noise_and_silence_have_no_pitch() -> None:
    noise = np.random.default_rng(0).standard_normal(RATE) * 0.1
    assert pitch_of(_stereo(noise), RATE).voiced < 0.1
    assert pitch_of(_stereo(np.zeros(RATE)), RATE).voiced == 0.0
    assert pitch_of(np.zeros((2, 10), np.float32), RATE).voiced == 0.0


@pytest.mark.parametrize("snr_db", [0.0, 10.0, 20.0])
def test_harmonicity_is_the_ratio_of_tone_to_noise(snr_db: float) -> None:
    tone = _note(220, 1.5)
    noise = np.random.default_rng(0).standard_normal(len(tone))
    # Noise as wide as what pitch is looked for in, so that none is filtered away.
    spectrum = np.fft.rfft(noise)
    spectrum[int(len(tone) * 10_000 / RATE) :] = 0
    noise = np.fft.irfft(spectrum, len(tone))
    noise *= np.sqrt(np.mean(tone**2) / np.mean(noise**2)) * 10 ** (-snr_db / 20)
    found = pitch_of(_stereo(tone + noise), RATE)
    if snr_db > 5:
        assert np.nanmedian(found.harmonicity_N) == pytest.approx(snr_db, abs=2.5)
    else:
        assert found.voiced < 0.5


def _scale(tonic_midi: int, steps: tuple[int, ...], seconds: float = 0.3) -> np.ndarray:
    return np.concatenate([_note(440 * 2 ** ((tonic_midi + s - 69) / 12), seconds, 3) for s in steps])


def test_a_scale_is_in_its_key_and_a_note_in_its_register() -> None:
    d_major = _scale(62, (0, 2, 4, 5, 7, 9, 11, 12))
    heard = np.stack([hear(_stereo(d_major), RATE)] * 3)
    concepts = [
        json.dumps({"key": "D major", "register": "middle", "form": "jig"}),
        json.dumps({"key": "G sharp major", "register": "high", "form": "jig"}),
        json.dumps({"kind": "noise"}),
    ]
    found = agreement(heard, concepts, [2.4] * 3, -20.0)
    assert found["in_key"][0] > 0.85 and found["in_key"][1] < 0.5 and np.isnan(found["in_key"][2])
    assert found["in_register"].tolist()[:2] == [1.0, 0.0] and np.isnan(found["in_register"][2])
    assert found["length"] == pytest.approx([0.0] * 3, abs=0.01)


@pytest.mark.parametrize("bpm", [72, 100, 132, 152])
def test_clicks_on_the_beat_have_its_tempo(bpm: int) -> None:
    clip = np.zeros(3 * RATE)
    burst = np.random.default_rng(0).standard_normal(2_000) * np.exp(-np.arange(2_000) / 300)
    for beat in np.arange(0, 2.9, 60 / bpm):
        start = int(beat * RATE)
        clip[start : start + 2_000] += burst[: len(clip) - start]
    heard = np.stack([hear(_stereo(clip * 0.2), RATE)] * 2)
    found = agreement(heard, [json.dumps({"bpm": bpm}), json.dumps({"bpm": bpm * 1.21})], [3.0] * 2, -20.0)
    assert found["tempo"].tolist() == [1.0, 0.0]


def test_loudness_and_length_are_distances() -> None:
    tone = _stereo(_note(1_000, 1.0, 1))
    padded = np.concatenate([tone, np.zeros_like(tone)], axis=1)
    heard = np.stack([hear(tone, RATE), hear(tone / 2, RATE), hear(padded, RATE)])
    found = agreement(heard, ["{}"] * 3, [1.0, 1.0, 2.0], float(heard[0, FEATURES.index("lufs")]))
    assert found["loudness"][:2] == pytest.approx([0.0, 6.02], abs=0.05)
    assert found["length"] == pytest.approx([0.0, 0.0, 1.0], abs=0.01)


def test_broken_clips_are_heard_as_nothing() -> None:
    for clip in (np.zeros((2, 5_000)), np.full((2, 5_000), np.nan)):
        heard = hear(clip, RATE)
        assert heard.shape == (len(FEATURES) + ONSETS,) and np.isnan(heard).all()
    found = agreement(hear(np.zeros((2, 9)), RATE)[None], ['{"key":"C major","bpm":90}'], [1.0], -20.0)
    assert all(np.isnan(values).all() for values in found.values())
