"""Audio files: what is written is what was made, to 16 bits."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sonarc.contracts.errors import ConfigError, StoreError
from sonarc.runtime.wave import encode_audio, write_audio


@pytest.mark.parametrize("kind", ["wav", "flac"])
def test_round_trip_is_exact_to_16_bits_and_clips_beyond_full_scale(kind: str) -> None:
    audio_AS = np.random.default_rng(0).uniform(-1.2, 1.2, (2, 1_000)).astype(np.float32)
    back_SA, rate = soundfile.read(io.BytesIO(encode_audio(audio_AS, 44_100, kind)))
    assert rate == 44_100
    assert np.abs(back_SA.T - audio_AS.clip(-1, 1)).max() < 2 / 2**15


def test_pcm_is_the_bare_samples() -> None:
    audio_AS = np.array([[0.0, 0.5], [-0.5, 1.0]], np.float32)
    assert np.frombuffer(encode_audio(audio_AS, 44_100, "pcm"), "<i2").tolist() == [0, -16_384, 16_384, 32_767]


@pytest.mark.parametrize("kind", ["ogg", "mp3"])
def test_lossy_kinds_sound_alike(kind: str) -> None:
    tone_S = 0.5 * np.sin(2 * np.pi * 440 * np.arange(12 * 44_100) / 44_100).astype(np.float32)
    back_SA, rate = soundfile.read(io.BytesIO(encode_audio(np.stack([tone_S, tone_S]), 44_100, kind)))
    assert rate == 44_100 and abs(len(back_SA) - len(tone_S)) < 3_000
    assert np.sqrt(np.mean(back_SA**2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.02)


def test_other_endings_and_unwritable_places_are_refused(tmp_path: Path) -> None:
    audio_AS = np.zeros((2, 10), np.float32)
    with pytest.raises(ConfigError, match=r"x\.pcm"):
        write_audio(tmp_path / "x.pcm", audio_AS, 44_100)
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError):
        write_audio(tmp_path / "file" / "x.wav", audio_AS, 44_100)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
