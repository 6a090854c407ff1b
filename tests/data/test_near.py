"""Copies of a sound in other bytes are found, and other sounds are not."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile
import soxr
from numpy.typing import NDArray
from sounds import noise

from sonarc.data.near import WIDTH, Seen, fingerprint, of_file

RATE = 44_100


def melody(seed: int, seconds: float = 2.0) -> NDArray[np.float32]:
    """A few decaying notes with overtones."""
    random = np.random.default_rng(seed)
    t = np.arange(round(seconds * RATE)) / RATE
    mono = np.zeros(len(t))
    for start in np.sort(random.uniform(0, seconds * 0.9, 6)):
        pitch, since = 110 * 2 ** (random.integers(0, 36) / 12), t - start
        wave = sum(np.sin(2 * np.pi * pitch * k * since) / k ** random.uniform(0.5, 2) for k in range(1, 9))
        mono += np.where(since >= 0, wave * np.exp(-random.uniform(1, 8) * np.maximum(since, 0)), 0)
    mono = 0.5 * mono / np.abs(mono).max()
    return np.stack([mono, 0.8 * mono]).astype(np.float32)


def through(sound: NDArray[np.float32], kind: str, rate: int = RATE) -> NDArray[np.float32]:
    """A sound written in a format at a rate, read, and brought back."""
    buffer = io.BytesIO()
    soundfile.write(buffer, soxr.resample(sound.T, RATE, rate), rate, format=kind)
    buffer.seek(0)
    read, _ = soundfile.read(buffer, dtype="float32")
    return np.ascontiguousarray(soxr.resample(read, rate, RATE).T, dtype=np.float32)


@pytest.mark.parametrize("kind", ["MP3", "OGG", "FLAC", "WAV"])
@pytest.mark.parametrize("rate", [44_100, 32_000])
def test_copies_in_other_formats_and_levels_sound_the_same(kind: str, rate: int) -> None:
    for seed in range(4):
        sound = melody(seed)
        copy = 0.4 * through(sound, kind, rate)[:, : sound.shape[1]]
        assert fingerprint(sound, RATE) @ fingerprint(copy, RATE) > 0.998


def test_other_sounds_are_told_apart() -> None:
    prints = np.stack([fingerprint(melody(seed), RATE) for seed in range(40)])
    similarity = prints @ prints.T - 2 * np.eye(40)
    assert similarity.max() < 0.99
    assert fingerprint(noise(1.0, seed=1), RATE).shape == (WIDTH // 2,)
    assert np.isfinite(fingerprint(np.zeros((2, 100), np.float32), RATE)).all()


def test_the_first_of_alike_files_stays_and_lengths_count() -> None:
    one, two = (of_file([fingerprint(melody(seed), RATE)] * 2) for seed in (1, 2))
    begins_alike = of_file([fingerprint(melody(1), RATE), fingerprint(melody(3), RATE)])
    seen = Seen(0.998)
    seen.add("old", 4.0, one)

    files = [
        ("two", 4.0, two),
        ("copy", 4.02, one),
        ("long", 5.0, one),
        ("intro", 4.0, begins_alike),
        ("again", 4.0, two),
    ]
    found = seen.sift(files)

    assert [None if hit is None else hit[0] for hit in found] == [None, "old", None, None, "two"]
    assert found[1] is not None and found[1][1] == pytest.approx(1.0, abs=1e-3)


def test_many_files_are_sifted_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    files = [(str(seed), 2.0, of_file([fingerprint(melody(seed % 7), RATE)])) for seed in range(21)]
    whole = Seen(0.998).sift(files)
    monkeypatch.setattr("sonarc.data.near.TOGETHER", 4)
    parts = Seen(0.998).sift(files)

    names = [hit and hit[0] for hit in whole]
    assert names == [hit and hit[0] for hit in parts] == [None] * 7 + [str(seed % 7) for seed in range(14)]
