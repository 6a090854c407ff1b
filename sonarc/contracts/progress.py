"""Progress: a job appends events to `progress.jsonl`; terminals, MLflow and the API render them."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError


class ProgressEvent(BaseModel):
    """One line of `progress.jsonl`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    time: float
    """Unix time, seconds."""
    stage: str
    done: float
    """Units finished, of `total`."""
    total: float
    """Units in all; 0 when not known yet."""
    unit: str = "items"
    rate: float = 0.0
    """Units a second since the stage's first event."""
    message: str = ""
    metrics: dict[str, float] = {}
    """Curve points of a training stage, such as `loss`."""


class ProgressWriter:
    """Appends events of one stage; at most one in `every` seconds, the last always.

    A line is written by one `os.write` on an append-only descriptor, so lines of several processes
    never interleave.
    """

    def __init__(self, path: Path, stage: str, *, every: float = 0.5) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.stage, self.every = path, stage, every
        self._start = time.time()
        self._last = 0.0

    def __call__(
        self,
        done: float,
        total: float,
        *,
        unit: str = "items",
        message: str = "",
        metrics: dict[str, float] | None = None,
    ) -> None:
        """Report `done` of `total` units."""
        now = time.time()
        if now - self._last < self.every and done < total and not message:
            return
        self._last = now
        event = ProgressEvent(
            time=now,
            stage=self.stage,
            done=done,
            total=total,
            unit=unit,
            rate=done / max(now - self._start, 1e-9),
            message=message,
            metrics=metrics or {},
        )
        line = (json.dumps(event.model_dump(), allow_nan=True) + "\n").encode()
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(descriptor, line)
        finally:
            os.close(descriptor)


def read_progress(path: Path, offset: int = 0) -> tuple[list[ProgressEvent], int]:
    """Events appended since byte `offset`, and the offset to read on from.

    A line still being written is left for the next call; a damaged line is skipped.
    """
    if not path.exists():
        return [], offset
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read()
    whole = data[: data.rfind(b"\n") + 1]
    events = []
    for line in whole.splitlines():
        try:
            events.append(ProgressEvent.model_validate_json(line))
        except ValidationError:
            continue
    return events, offset + len(whole)
