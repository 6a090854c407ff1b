"""What a clip costs under each sampling: all of them in turn, over and over, so that what else the machine does falls
on all of them alike. How good the clips are is found elsewhere, whenever; this runs once, at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median

from pydantic import BaseModel, ConfigDict

from sonarc.metrics.tasks import TOGETHER, Tasks
from sonarc.runtime.sampled import Make

ROUNDS = 3


class Timing(BaseModel):
    """Seconds of wall time a clip, sampling and decoding, the clips of a batch together.

    Attributes:
        kind: see `Sampling`.
        guided: whether each step evaluates the network with and without the prompt.
        seconds: median of the rounds; `low` and `high` the quickest and the slowest.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str
    steps: int
    guided: bool
    seconds: float
    low: float
    high: float


Way = tuple[str, int, bool]
"""Kind, steps, guided."""


def timings(
    ways: Mapping[Way, Callable[[], Make]], tasks: Tasks, tell: Callable[[int, int], None], rounds: int = ROUNDS
) -> tuple[Timing, ...]:
    """Time every way on the first batch of `tasks`, each once a round, after one clip of each that does not count.

    Args:
        ways: what to time → gives what makes its clips, before the clock starts.
        tell: hears how many of how many measurements are done.
    """
    some = tasks[range(min(TOGETHER, len(tasks)))]
    first = tasks[range(1)]
    found: dict[Way, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, load in ways.items():
            make = load()
            if not found[way]:
                make(first.prompts, first.seconds, first.seeds)
            start = time.perf_counter()
            make(some.prompts, some.seconds, some.seeds)
            found[way].append((time.perf_counter() - start) / len(some))
            tell(sum(map(len, found.values())), rounds * len(ways))
    return tuple(
        Timing(kind=kind, steps=steps, guided=guided, seconds=median(took), low=min(took), high=max(took))
        for (kind, steps, guided), took in found.items()
    )
