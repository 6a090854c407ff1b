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


def test_other_endings_and_unwritable_places_are_refused(tmp_path: Path) -> None:
    audio_AS = np.zeros((2, 10), np.float32)
    with pytest.raises(ConfigError, match=r"x\.mp3"):
        write_audio(tmp_path / "x.mp3", audio_AS, 44_100)
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError):
        write_audio(tmp_path / "file" / "x.wav", audio_AS, 44_100)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
