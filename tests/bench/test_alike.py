"""What sounds the same is found to be the same, and what does not, as far apart as it is."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import pytest

from sonarc.bench.alike import Clips, likeness
from sonarc.bench.precision import difference_db
from sonarc.bench.sounds import sound

RATE, SECONDS, CLIPS = 44_100, 1.0, 24


def made(prompts: Sequence[str], seeds: Sequence[int], *, hiss: float = 0.0) -> Clips:
    """Noise of a colour that the seed decides, and white noise over it."""
    random = np.random.default_rng(0)
    clips = np.stack([sound(seed, SECONDS, RATE) for seed in seeds])
    return clips + np.float32(hiss) * random.standard_normal(clips.shape).astype(np.float32)


def test_the_same_is_the_same_and_hiss_is_heard_by_its_loudness() -> None:
    ways = {"exact": made, "same": made, "faint": partial(made, hiss=0.001), "loud": partial(made, hiss=0.3)}
    found = {row.name: row for row in likeness(ways, CLIPS, threads=2)}
    assert found["frechet.same"].value == pytest.approx(0, abs=1e-4)
    assert found["cosine.same"].value == pytest.approx(1, abs=1e-4)
    assert found["adherence.same"].value == found["adherence.exact"].value
    assert 0 < found["frechet.faint"].value < found["frechet.other_seeds"].value < found["frechet.loud"].value
    assert found["cosine.loud"].value < 0.9 < found["cosine.faint"].value
    assert all(row.n == CLIPS for row in found.values())


def test_a_difference_is_told_against_its_own_clip() -> None:
    exact = np.stack([np.ones((2, 100), np.float32), 0.1 * np.ones((2, 100), np.float32)])
    assert difference_db(exact, exact * np.float32(1.01)) == pytest.approx([-40, -40], abs=0.01)
    assert difference_db(exact, exact) == pytest.approx([-200, -200])
