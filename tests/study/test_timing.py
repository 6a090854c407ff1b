"""Samplings are timed in turn, round after round, on the same prompts."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from sonarc.metrics.embedders.interface import Audio
from sonarc.metrics.tasks import Tasks
from sonarc.runtime.sampled import Make
from sonarc.study.timing import Way, timings

TASKS = Tasks([f"k{n}" for n in range(4)], ["a", "b", "c", "d"], [1.0] * 4, [0, 1, 2, 3], ["{}"] * 4)


def test_every_way_is_timed_in_turn_after_one_clip_that_does_not_count() -> None:
    order: list[tuple[str, int]] = []

    def way(name: str, pause: float) -> Callable[[], Make]:
        def make(prompts: Sequence[str], seconds: Sequence[float], seeds: Sequence[int]) -> list[Audio]:
            order.append((name, len(prompts)))
            time.sleep(pause * len(prompts))
            return [np.zeros((2, 8), np.float32) for _ in prompts]

        return lambda: make

    told: list[tuple[int, int]] = []
    quick: Way = ("generator", 1, False)
    slow: Way = ("base", 8, True)
    found = timings(
        {quick: way("quick", 0.001), slow: way("slow", 0.01)}, TASKS, lambda n, total: told.append((n, total)), 2
    )
    assert order == [("quick", 1), ("quick", 4), ("slow", 1), ("slow", 4), ("quick", 4), ("slow", 4)]
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    by_steps = {t.steps: t for t in found}
    assert by_steps[8].guided and by_steps[8].kind == "base" and not by_steps[1].guided
    assert by_steps[8].seconds == pytest.approx(0.01, rel=0.8) and by_steps[8].seconds > by_steps[1].seconds
    assert all(t.low <= t.seconds <= t.high for t in found)
