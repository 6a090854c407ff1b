"""What a training's worker tells its driver is there before a checkpoint that says the steps are done."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import ray
import torch

from ray_jobs.worker import REPORT_EVERY, Point, Worker

pytestmark = pytest.mark.usefixtures("ray_local")
STEPS = 3 * REPORT_EVERY


class _SlowMailbox:
    def __init__(self, taken: str) -> None:
        self._taken = Path(taken)

    def put(self, point: Point) -> None:
        time.sleep(0.3)
        (self._taken / str(point.step)).touch()


class _Saver:
    def __init__(self, taken: Path) -> None:
        self._taken, self.found = taken, list[list[int]]()

    def save(self, **_: Any) -> None:
        self.found.append(sorted(int(path.name) for path in self._taken.iterdir()))


def test_points_of_the_curves_arrive_before_a_checkpoint_is_written(tmp_path: Path) -> None:
    saver: Any = _Saver(tmp_path)
    mailbox = ray.remote(num_cpus=0)(_SlowMailbox).remote(str(tmp_path))
    worker = Worker(0, 1, torch.device("cpu"), tmp_path.as_uri(), saver, mailbox)
    for step in range(STEPS):
        worker.report(step + 1, STEPS, {"loss": 1.0})
        if step + 1 in (2 * REPORT_EVERY, STEPS):
            worker.save(model={}, state={})
    assert saver.found == [[REPORT_EVERY, 2 * REPORT_EVERY], [REPORT_EVERY, 2 * REPORT_EVERY, STEPS]]
