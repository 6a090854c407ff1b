"""One worker of a distributed training, as Ray Train starts it: what `sonarc.training.worker.TrainingWorker` asks for.

A machine that is to be taken away says so before (a drain notice; `ray start` gives it when it is sent SIGTERM). The
workers then agree on a step, save after it, and end: the driver starts them again where there is room.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import ray
from ray.actor import ActorHandle

from sonarc.contracts.errors import SonarcError, StoreError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from sonarc.checkpoint import Checkpoint
    from sonarc.training.saving import Saver

REPORT_EVERY = 10
"""Steps between points of the curves."""
NOTICE_SECONDS = 2.0
"""How often Ray is asked whether a machine is to be taken away; it looks every five seconds itself."""


@dataclass(frozen=True)
class Point:
    """A point of the training curves."""

    step: int
    total: int
    metrics: dict[str, float]
    message: str = ""


class Mailbox:
    """Between workers and driver: curve points, the error that no restart can mend, and that the workers left early."""

    def __init__(self) -> None:
        self._points: list[Point] = []
        self._failure: SonarcError | None = None
        self._left = False

    def put(self, point: Point) -> None:
        self._points.append(point)

    def take(self) -> list[Point]:
        points, self._points = self._points, []
        return points

    def fail(self, error: SonarcError) -> None:
        self._failure = self._failure or error

    def failure(self) -> SonarcError | None:
        return self._failure

    def leave(self) -> None:
        self._left = True

    def left(self) -> bool:
        """Whether workers have left since this was last asked."""
        left, self._left = self._left, False
        return left


@dataclass
class Notice:
    """Whether a machine of this training is to be taken away; the same answer on every worker."""

    given: bool = False
    _asked: float = field(default_factory=time.monotonic)

    def check(self, worker: Worker) -> bool:
        """Ask Ray, now and then. Every worker must call it after every step."""
        from ray.train import get_preemption_info

        # Asking is a barrier among workers, so one clock decides for all.
        due = worker.rank == 0 and time.monotonic() - self._asked >= NOTICE_SECONDS
        if not self.given and worker.total({"due": float(due)})["due"]:
            self._asked = time.monotonic()
            self.given = get_preemption_info() is not None
        return self.given


@dataclass(frozen=True)
class Worker:
    """One worker's view of a training over Ray; see `sonarc.training.worker.TrainingWorker`.

    Attributes:
        rank: its number, from 0.
        workers: how many there are.
        device: where its tensors live.
        checkpoints: URI of the folder that holds the training's checkpoints.
        saver: writes there, as this attempt.
        sharded: whether modules are sharded over workers.
    """

    rank: int
    workers: int
    device: torch.device
    checkpoints: str
    saver: Saver
    mailbox: ActorHandle
    notice: Notice = field(default_factory=Notice)
    sharded: bool = False
    _sent: list[Any] = field(default_factory=list)
    """What the mailbox has not been seen to take yet."""

    def part(self, batch: int) -> slice:
        """This worker's part of a batch: contiguous, sizes differing by at most one."""
        return slice(batch * self.rank // self.workers, batch * (self.rank + 1) // self.workers)

    def wrap(self, module: nn.Module) -> nn.Module:
        """`module`, moved to the device in place, with gradients averaged over workers."""
        if self.sharded and self.workers > 1:
            from sonarc.training.sharding import shard

            shard(module, self.device, self.workers)
            return module
        module.to(self.device)
        if self.workers == 1 or not any(parameter.requires_grad for parameter in module.parameters()):
            return module
        from torch.nn.parallel import DistributedDataParallel

        return DistributedDataParallel(module, device_ids=None if self.device.type == "cpu" else [self.device])

    def total(self, figures: Mapping[str, float]) -> dict[str, float]:
        """Figures summed over workers; every worker must call it, with the same names."""
        if self.workers == 1:
            return dict(figures)
        import torch
        from torch import distributed

        values = torch.tensor([figures[name] for name in sorted(figures)], dtype=torch.float64, device=self.device)
        distributed.all_reduce(values)
        return dict(zip(sorted(figures), values.tolist(), strict=True))

    def report(self, step: int, total: int, metrics: Mapping[str, float], message: str = "") -> None:
        """Send a point of the curves, averaged over workers, every `REPORT_EVERY` steps and after the last.

        Every worker calls it after every step. Rank 0's `message`, in words, is sent at once.
        """
        if self.rank == 0 and message:
            self._sent.append(self.mailbox.put.remote(Point(step, total, {}, message)))
        if step % REPORT_EVERY and step != total:
            return
        averaged = {name: value / self.workers for name, value in self.total(metrics).items()}
        if self.rank == 0:
            self._sent.append(self.mailbox.put.remote(Point(step, total, averaged)))

    def due(self, step: int, total: int, every: int) -> bool:
        """Whether a checkpoint is due after a step: every so many, after the last, and before leaving."""
        told = self.notice.given
        leaving = self.notice.check(self) and not told
        return leaving or step % every == 0 or step == total

    @property
    def leaving(self) -> bool:
        """Whether to end after this step, saved, though it is not the last: a machine is to be taken away."""
        return self.notice.given

    def resume(self, config_sha256: str) -> Checkpoint | None:
        """The checkpoint to go on from, the same on every worker; None to start afresh.

        Raises:
            CheckpointError: what is there was trained with other settings.
        """
        from ray.train.collective import broadcast_from_rank_zero

        from sonarc.checkpoint import load_checkpoint, resume_point

        found = resume_point(self.checkpoints, config_sha256) if self.rank == 0 else None
        if self.workers == 1:
            return found
        uri = broadcast_from_rank_zero(found.uri if found else None)
        return found if self.rank == 0 or uri is None else load_checkpoint(uri)

    def save(self, **checkpoint: Any) -> None:
        """See `TrainingWorker` and `Saver`: rank 0 writes, the others go on.

        Points of the curves arrive first: who goes on from a checkpoint does not report the steps before it again.
        """
        from sonarc.checkpoint import gathered

        first = self.rank == 0
        model = gathered(checkpoint.pop("model"), keep=first)
        state = {name: gathered(tensors, keep=first) for name, tensors in checkpoint.pop("state").items()}
        if first:
            self.wait_for_points()
            self.saver.save(model=model, state=state, **checkpoint)

    def wait_for_points(self) -> None:
        """Return once the mailbox has all points of the curves."""
        if self._sent:
            ray.get(self._sent)
            self._sent.clear()

    def finish(self) -> None:
        """See `TrainingWorker` and `Saver`."""
        self.saver.finish()


def run_worker(given: dict[str, Any]) -> None:
    """What Ray Train runs on each worker."""
    import torch
    from ray import train
    from ray.train.collective import broadcast_from_rank_zero
    from ray.train.torch import get_device

    from sonarc.checkpoint import claim_attempt
    from sonarc.contracts import log
    from sonarc.training.saving import Saver

    log.setup()
    mailbox = given["mailbox"]
    if ray.get(mailbox.failure.remote()) is not None:
        return  # a restart after an error that none can mend
    torch.set_num_threads(given["threads"])
    place = train.get_context()
    rank, workers = place.get_world_rank(), place.get_world_size()
    try:
        attempt = claim_attempt(given["checkpoints"]) if rank == 0 else 0
        if workers > 1:
            attempt = broadcast_from_rank_zero(attempt)
        saver = Saver(given["checkpoints"], attempt)
        worker = Worker(rank, workers, get_device(), given["checkpoints"], saver, mailbox, sharded=given["sharded"])
        given["loop"](worker, given["settings"])
        if worker.leaving and rank == 0:
            ray.get(mailbox.leave.remote())
    except StoreError:
        raise  # the store may answer the next attempt
    except SonarcError as error:
        ray.get(mailbox.fail.remote(error))
        raise
