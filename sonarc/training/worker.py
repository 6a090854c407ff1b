"""What a training loop asks of whoever runs it: its part of a batch, a place for checkpoints, ears for its figures.

`ray_jobs.worker.Worker` is one of many over Ray; `LocalWorker` is the only one, in this process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from sonarc.checkpoint import Checkpoint, claim_attempt, resume_point
from sonarc.training.saving import Saver

Report = Callable[[int, int, Mapping[str, float]], None]
"""Called after a step with its number, the steps in all and its figures."""


class TrainingWorker(Protocol):
    """One worker's view of a training."""

    @property
    def workers(self) -> int:
        """How many share each batch."""

    @property
    def device(self) -> torch.device:
        """Where its tensors live."""

    def part(self, batch: int) -> slice:
        """Its part of a batch."""

    def wrap(self, module: nn.Module) -> nn.Module:
        """`module`, moved to the device in place, with gradients averaged over workers."""

    def report(self, step: int, total: int, metrics: Mapping[str, float], message: str = "") -> None:
        """Take note of a step; every worker calls it after every step."""

    def due(self, step: int, total: int, every: int) -> bool:
        """Whether a checkpoint is due after a step; every worker asks after every step, and hears the same."""

    @property
    def leaving(self) -> bool:
        """Whether to end after this step, saved, though it is not the last."""

    def resume(self, config_sha256: str) -> Checkpoint | None:
        """The checkpoint to go on from; None to start afresh."""

    def save(
        self,
        *,
        kind: Literal["base", "generator"],
        step: int,
        position: int,
        model: Mapping[str, Tensor],
        state: Mapping[str, Mapping[str, Tensor]],
        config: Mapping[str, Any],
        config_sha256: str,
        lineage: Mapping[str, str],
    ) -> None:
        """Begin to write a checkpoint; old ones are dropped once it is whole. Every worker calls it: tensors may be
        sharded over them."""

    def finish(self) -> None:
        """Wait for the last checkpoint: a loop's last act."""


@dataclass(frozen=True)
class LocalWorker:
    """The only worker of a training in this process, on the CPU.

    Attributes:
        checkpoints: URI of the folder that holds the training's checkpoints.
        saver: writes there.
        heard: takes the figures of every step.
    """

    checkpoints: str
    saver: Saver
    heard: Report

    @property
    def workers(self) -> int:
        """One."""
        return 1

    @property
    def device(self) -> torch.device:
        """The CPU."""
        return torch.device("cpu")

    @classmethod
    def start(cls, checkpoints: str, heard: Report) -> LocalWorker:
        """A new attempt at the training whose checkpoints are there."""
        return cls(checkpoints, Saver(checkpoints, claim_attempt(checkpoints)), heard)

    def part(self, batch: int) -> slice:
        """All of it."""
        return slice(batch)

    def wrap(self, module: nn.Module) -> nn.Module:
        """`module` itself."""
        return module

    def report(self, step: int, total: int, metrics: Mapping[str, float], message: str = "") -> None:
        """Pass the figures on."""
        self.heard(step, total, metrics)

    def due(self, step: int, total: int, every: int) -> bool:
        """Every so many steps and after the last."""
        return step % every == 0 or step == total

    @property
    def leaving(self) -> bool:
        """Never."""
        return False

    def resume(self, config_sha256: str) -> Checkpoint | None:
        """See `TrainingWorker`.

        Raises:
            CheckpointError: what is there was trained with other settings.
        """
        return resume_point(self.checkpoints, config_sha256)

    def save(self, **checkpoint: Any) -> None:
        """See `TrainingWorker` and `Saver`."""
        self.saver.save(**checkpoint)

    def finish(self) -> None:
        """See `TrainingWorker` and `Saver`."""
        self.saver.finish()
