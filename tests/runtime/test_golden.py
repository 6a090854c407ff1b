"""A seed is the same sound from one release to the next, and the fast path makes the sound that the network makes."""

from __future__ import annotations

import json

import golden
import numpy as np
import pytest
import torch

from sonarc.bench.precision import difference_db

TOLERANCE = 1e-3
"""Of a clip's peak: float32's rounding on another processor, through all steps."""


@pytest.fixture(scope="module")
def makers() -> golden.Makers:
    return golden.makers()


@pytest.mark.parametrize("way", golden.WAYS)
def test_a_seed_is_the_sound_it_was(makers: golden.Makers, way: str) -> None:
    then = json.loads(golden.FILE.read_text(encoding="utf-8"))[way]
    for clip, expected in zip(makers.clips(golden.WAYS[way], "float32"), then, strict=True):
        now = clip[:, :: golden.EVERY]
        assert np.abs(now - np.array(expected)).max() < TOLERANCE * np.abs(clip).max()
        assert now.shape[1] > 100 and np.abs(now).max() > 0.01


@pytest.mark.parametrize("way", golden.WAYS)
def test_the_fast_path_makes_the_same_sound(makers: golden.Makers, way: str) -> None:
    exact, fast = (makers.clips(golden.WAYS[way], precision) for precision in ("float32", "bfloat16"))
    found = [difference_db(a[None], b[None])[0] for a, b in zip(exact, fast, strict=True)]
    assert max(found) < -30


def test_a_weight_that_changed_by_a_hundredth_is_heard(makers: golden.Makers) -> None:
    """What the two tests above would tell."""
    model = makers.exact.model
    assert isinstance(model, torch.nn.Module)
    before = makers.clips(golden.WAYS["generator, 4 steps"], "float32")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.01)
    after = makers.clips(golden.WAYS["generator, 4 steps"], "float32")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.div_(1.01)
    assert all(np.abs(a - b).max() > golden_tolerance(a) for a, b in zip(before, after, strict=True))


def golden_tolerance(clip: np.ndarray) -> float:
    return float(TOLERANCE * np.abs(clip).max())
