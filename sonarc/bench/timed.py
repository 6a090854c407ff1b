"""A pre-training that notes when each step ended: what `ray_jobs.timed` runs, over Ray Train or bare.

A line of the notes is a step's number and the monotonic clock, which all processes of a machine share.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from sonarc.training.loop import PretrainJob
    from sonarc.training.worker import TrainingWorker


@dataclass(frozen=True)
class TimedJob:
    """What the workers are told.

    Attributes:
        notes: local path of the notes; the first worker writes them.
    """

    job: PretrainJob
    notes: str


class _Noting:
    """A worker whose reports are noted, and which is else the one it wraps."""

    def __init__(self, worker: TrainingWorker, path: Path) -> None:
        self._worker = worker
        self._notes = path.open("a", encoding="ascii", buffering=1)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._worker, name)

    def report(self, step: int, total: int, metrics: Mapping[str, float], message: str = "") -> None:
        """Note the step, and pass the report on."""
        self._notes.write(f"{step} {time.monotonic()}\n")
        self._worker.report(step, total, metrics, message)


def timed_pretrain(worker: TrainingWorker, timed: TimedJob) -> None:
    """`pretrain`, with notes."""
    from sonarc.training.loop import pretrain

    first = worker.part(timed.job.config.pretrain.batch).start in (0, None)
    pretrain(cast("TrainingWorker", _Noting(worker, Path(timed.notes))) if first else worker, timed.job)


def read_notes(path: Path) -> list[tuple[int, float]]:
    """(step, clock) in the order in which they were noted; empty before the first."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="ascii").splitlines()
    return [(int(step), float(clock)) for step, clock in (line.split() for line in lines if line.count(" ") == 1)]
