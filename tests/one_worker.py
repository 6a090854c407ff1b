"""A training by one worker in this very process: what `ray_jobs.training.train` does, without Ray Train's processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch

from ray_jobs.worker import Notice, Point, Worker
from sonarc.checkpoint import claim_attempt
from sonarc.contracts import store
from sonarc.contracts.checkpoint import CheckpointManifest, newest
from sonarc.contracts.stage import StageContext
from sonarc.training.saving import Saver

S = TypeVar("S")


class _Mailbox:
    """Takes points as the actor does, and passes them on at once."""

    def __init__(self, context: StageContext) -> None:
        self._context, self.put = context, self

    def remote(self, point: Point) -> None:
        self._context.progress(point.step, point.total, unit="steps", message=point.message, metrics=point.metrics)


class _Here(Worker):
    """A worker whose points arrive at once."""

    def wait_for_points(self) -> None:
        pass


class Undisturbed(Notice):
    """Nobody takes this machine away."""

    def check(self, worker: Worker) -> bool:
        return False


def train_here(context: StageContext, loop: Callable[[Worker, S], None], settings: S) -> tuple[str, CheckpointManifest]:
    """The same arguments and answer as `ray_jobs.training.train`."""
    checkpoints = store.join(context.folder, "checkpoints")
    mailbox: Any = _Mailbox(context)
    torch.set_num_threads(context.config.compute.threads)
    saver = Saver(checkpoints, claim_attempt(checkpoints))
    loop(_Here(0, 1, torch.device("cpu"), checkpoints, saver, mailbox, Undisturbed()), settings)
    found = newest(checkpoints)
    assert found is not None
    return found
