"""Copies of a sound in other bytes are found, and other sounds are not."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile
import soxr
from numpy.typing import NDArray
from sounds import noise

from sonarc.data.near import BANDS, WIDTH, Seen, fingerprint, of_file

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
    seen.add([("old", 4.0, one)])

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


def test_no_near_duplicate_is_missed_and_few_files_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against every pair, near the threshold: 300 files, each with a copy that is just similar enough or just not."""
    random = np.random.default_rng(0)
    firsts = np.cumsum(random.standard_normal((300, WIDTH // BANDS, BANDS)), axis=2).reshape(300, WIDTH)
    firsts -= firsts.mean(axis=1, keepdims=True)
    firsts /= np.linalg.norm(firsts, axis=1, keepdims=True)
    away = random.standard_normal((300, WIDTH))
    away -= (away * firsts).sum(axis=1, keepdims=True) * firsts
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    angle = np.arccos(0.998) * random.uniform(0.8, 1.2, (300, 1))
    vectors = np.concatenate([firsts, np.cos(angle) * firsts + np.sin(angle) * away]).astype(np.float16)
    compared = list[int]()
    stack = np.stack

    def counted(arrays: list[NDArray[np.float16]]) -> NDArray[np.float16]:
        compared.append(len(arrays))
        return stack(arrays)

    seen = Seen(0.998)
    monkeypatch.setattr("sonarc.data.near.TOGETHER", 64)
    monkeypatch.setattr("sonarc.data.near.np.stack", counted)
    found = seen.sift([(str(n), 2.0, vector) for n, vector in enumerate(vectors)])

    wide = vectors.astype(np.float32)
    expected = [str(n) if wide[n] @ wide[300 + n] >= 0.998 else None for n in range(300)]
    assert 50 < expected.count(None) < 250
    assert [hit and hit[0] for hit in found] == [None] * 300 + expected
    compared = [count for count in compared if count != 64]
    assert sum(compared) < 5 * 300, "of 180,000 pairs"
