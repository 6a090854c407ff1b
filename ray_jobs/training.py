"""The harness of every distributed training: Ray Train starts the workers, watches them and starts them again.

A training is a function `loop(worker, settings)` that each worker runs. What it needs of the outside is on
`Worker`: its part of each batch, averaging over workers, curves for the driver, checkpoints in the store. Ray's own
record of checkpoints is not used: a loop resumes from the newest whole one in the stage's folder, whoever wrote it,
so a killed worker, job or machine costs only the steps since then.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import ray
from ray.actor import ActorHandle

from ray_jobs.job import worker_env
from sonarc.contracts import store
from sonarc.contracts.checkpoint import CheckpointManifest, newest
from sonarc.contracts.errors import ConfigError, SonarcError, StageError, StoreError
from sonarc.contracts.stage import StageContext

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from torch import nn

    from sonarc.checkpoint import Checkpoint
    from sonarc.training.saving import Saver

S = TypeVar("S")

REPORT_EVERY = 10
"""Steps between points of the curves."""
POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Point:
    """A point of the training curves."""

    step: int
    total: int
    metrics: dict[str, float]
    message: str = ""


class _Mailbox:
    """Between workers and driver: curve points, and the error that no restart can mend."""

    def __init__(self) -> None:
        self._points: list[Point] = []
        self._failure: SonarcError | None = None

    def put(self, point: Point) -> None:
        self._points.append(point)

    def take(self) -> list[Point]:
        points, self._points = self._points, []
        return points

    def fail(self, error: SonarcError) -> None:
        self._failure = self._failure or error

    def failure(self) -> SonarcError | None:
        return self._failure


@dataclass(frozen=True)
class Worker:
    """One worker's view of a training over Ray; see `sonarc.training.worker.TrainingWorker`.

    Attributes:
        rank: its number, from 0.
        workers: how many there are.
        device: where its tensors live.
        checkpoints: URI of the folder that holds the training's checkpoints.
        saver: writes there, as this attempt.
    """

    rank: int
    workers: int
    device: torch.device
    checkpoints: str
    saver: Saver
    mailbox: ActorHandle

    def part(self, batch: int) -> slice:
        """This worker's part of a batch: contiguous, sizes differing by at most one."""
        return slice(batch * self.rank // self.workers, batch * (self.rank + 1) // self.workers)

    def wrap(self, module: nn.Module) -> nn.Module:
        """`module` with gradients averaged over workers."""
        if self.workers == 1:
            return module
        from torch.nn.parallel import DistributedDataParallel

        return DistributedDataParallel(module, device_ids=None if self.device.type == "cpu" else [self.device])

    def mean(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Metrics averaged over workers; every worker must call it, with the same names."""
        if self.workers == 1:
            return dict(metrics)
        import torch
        from torch import distributed

        values = torch.tensor([metrics[name] for name in sorted(metrics)], dtype=torch.float64, device=self.device)
        distributed.all_reduce(values)
        return dict(zip(sorted(metrics), (values / self.workers).tolist(), strict=True))

    def report(self, step: int, total: int, metrics: Mapping[str, float], message: str = "") -> None:
        """Send a point of the curves, averaged over workers, every `REPORT_EVERY` steps and after the last.

        Every worker calls it after every step. Rank 0's `message`, in words, is sent at once.
        """
        if self.rank == 0 and message:
            self.mailbox.put.remote(Point(step, total, {}, message))
        if step % REPORT_EVERY and step != total:
            return
        averaged = self.mean(metrics)
        if self.rank == 0:
            self.mailbox.put.remote(Point(step, total, averaged))

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
        """See `TrainingWorker` and `Saver`: rank 0 writes, the others go on."""
        if not self.rank:
            self.saver.save(**checkpoint)

    def finish(self) -> None:
        """See `TrainingWorker` and `Saver`."""
        self.saver.finish()


def check_workers(context: StageContext, batch: int) -> None:
    """Refuse more workers than clips in a batch.

    Raises:
        ConfigError: there are.
    """
    if (workers := context.config.compute.workers) > batch:
        raise ConfigError(
            f"compute.workers is {workers}, more than the {batch} clips of a batch.", "Use fewer workers."
        )


def train(context: StageContext, loop: Callable[[Worker, S], None], settings: S) -> tuple[str, CheckpointManifest]:
    """Run `loop(worker, settings)` on every worker until it returns; return the last checkpoint.

    Args:
        context: the stage's; curves go to its progress and its run.
        loop: importable by the workers; each step ends with `Worker.report`.
        settings: sent to the workers.

    Raises:
        SonarcError: what a worker raised; no restart is tried, as it would fail again.
        StageError: workers died more often than compute.max_failures, or left no checkpoint.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2.api.config import LoggingConfig

    compute = context.config.compute
    checkpoints = store.join(context.folder, "checkpoints")
    record = store.join(context.folder, "ray")
    path, filesystem = _arrow(record)
    mailbox = ray.remote(num_cpus=0)(_Mailbox).remote()
    trainer = TorchTrainer(
        _worker_main,
        train_loop_config={
            "loop": loop,
            "settings": settings,
            "checkpoints": checkpoints,
            "mailbox": mailbox,
            "threads": compute.threads,
        },
        torch_config=TorchConfig(backend="nccl" if compute.gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=compute.workers,
            use_gpu=compute.gpu,
            resources_per_worker={"CPU": compute.threads},
        ),
        run_config=RunConfig(
            # A finished run's name would be answered with its old result.
            name=f"{context.request.stage}-{ray.get_runtime_context().get_job_id()}-{context.scratch.name}",
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=FailureConfig(max_failures=compute.max_failures),
            worker_runtime_env={"env_vars": worker_env(compute.threads)},
            logging_config=LoggingConfig(log_level="WARNING"),
        ),
    )
    context.progress(0, 0, unit="steps", message=f"starting {compute.workers} training workers")
    try:
        with _curves(context, mailbox):
            _fit(trainer, mailbox)
    finally:
        ray.kill(mailbox)
        store.remove_folder(record)
    found = newest(checkpoints)
    if found is None:
        raise StageError("The training ended without a checkpoint.", "See the workers' logs.")
    return found


def _fit(trainer: Any, mailbox: ActorHandle) -> None:
    from ray.train import TrainingFailedError

    try:
        trainer.fit()
    except TrainingFailedError as error:
        failure = ray.get(mailbox.failure.remote())
        if failure is not None:
            raise failure from error
        raise StageError(
            f"The training's workers failed: {str(error).strip().splitlines()[-1]}", "See the workers' logs."
        ) from error
    if (failure := ray.get(mailbox.failure.remote())) is not None:
        raise failure


@contextmanager
def _curves(context: StageContext, mailbox: ActorHandle) -> Iterator[None]:
    """Passes the workers' points on to progress and tracking while the training runs."""
    done = threading.Event()

    def forward() -> None:
        while True:
            last = done.wait(POLL_SECONDS)
            for point in ray.get(mailbox.take.remote()):
                context.progress(point.step, point.total, unit="steps", message=point.message, metrics=point.metrics)
                context.run.log_metrics(point.metrics, step=point.step)
            if last:
                return

    thread = threading.Thread(target=forward, name="curves", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(timeout=30)


def _worker_main(given: dict[str, Any]) -> None:
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
        given["loop"](Worker(rank, workers, get_device(), given["checkpoints"], saver, mailbox), given["settings"])
    except StoreError:
        raise  # the store may answer the next attempt
    except SonarcError as error:
        ray.get(mailbox.fail.remote(error))
        raise


def _arrow(uri: str) -> tuple[str, Any]:
    """A location's path and pyarrow filesystem, through fsspec: pyarrow's own S3 has trouble with credentials."""
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    filesystem, path = store.filesystem(uri)
    return path, PyFileSystem(FSSpecHandler(filesystem))
