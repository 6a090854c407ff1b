"""The harness of every distributed training: Ray Train starts the workers, watches them and starts them again.

A training is a function `loop(worker, settings)` that each worker runs. What it needs of the outside is on `Worker`:
its part of each batch, averaging over workers, curves for the driver, checkpoints in the store. Ray's own record of
checkpoints is not used: a loop resumes from the newest whole one in the stage's folder, whoever wrote it, so a killed
worker, job or machine costs only the steps since then. With a range of workers Ray Train starts as many as there is
room for, fewer once a machine is lost, more once one has come.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import ray
from ray.actor import ActorHandle
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ray_jobs.worker import Mailbox, Worker, run_worker
from sonarc.contracts import store
from sonarc.contracts.checkpoint import CheckpointManifest, newest
from sonarc.contracts.computing import computing_env
from sonarc.contracts.errors import ConfigError, StageError
from sonarc.contracts.stage import StageContext

S = TypeVar("S")

POLL_SECONDS = 0.5


def check_workers(context: StageContext, batch: int) -> None:
    """Refuse more workers than clips in a batch.

    Raises:
        ConfigError: there are.
    """
    if (workers := context.config.compute.most_workers) > batch:
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
    compute = context.config.compute
    checkpoints = store.join(context.folder, "checkpoints")
    record = store.join(context.folder, "ray")
    # On the driver's own machine, as Ray Train's controller: it must outlive any other.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    mailbox = ray.remote(num_cpus=0, scheduling_strategy=here)(Mailbox).remote()
    given = {
        "loop": loop,
        "settings": settings,
        "checkpoints": checkpoints,
        "mailbox": mailbox,
        "threads": compute.threads,
        "sharded": compute.sharded,
    }
    context.progress(0, 0, unit="steps", message=f"starting {compute.most_workers} training workers")
    try:
        with _curves(context, mailbox):
            for turn in itertools.count():
                _fit(_trainer(context, given, record, turn), mailbox)
                if not ray.get(mailbox.left.remote()):
                    break
                context.progress(0, 0, unit="steps", message="a machine is taken away: starting the workers elsewhere")
    finally:
        ray.kill(mailbox)
        store.remove_folder(record)
    found = newest(checkpoints)
    if found is None:
        raise StageError("The training ended without a checkpoint.", "See the workers' logs.")
    return found


def _trainer(context: StageContext, given: dict[str, Any], record: str, turn: int) -> Any:
    """Ray Train's trainer.

    Args:
        given: what `run_worker` is given.
        record: URI of a folder for Ray's own record.
        turn: how often workers have left before.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2.api.config import LoggingConfig

    compute = context.config.compute
    path, filesystem = _arrow(record)
    return TorchTrainer(
        run_worker,
        train_loop_config=given,
        torch_config=TorchConfig(backend="nccl" if compute.gpu else "gloo", timeout_s=compute.collective_seconds),
        scaling_config=ScalingConfig(
            num_workers=compute.workers,
            elastic_resize_monitor_interval_s=compute.resize_seconds,
            use_gpu=compute.gpu,
            resources_per_worker={"CPU": compute.threads},
        ),
        run_config=RunConfig(
            # A finished run's name would be answered with its old result.
            name=f"{context.request.stage}-{ray.get_runtime_context().get_job_id()}-{context.scratch.name}-{turn}",
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=FailureConfig(max_failures=compute.max_failures),
            worker_runtime_env={"env_vars": computing_env(compute.threads)},
            logging_config=LoggingConfig(log_level="WARNING"),
        ),
    )


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


def _arrow(uri: str) -> tuple[str, Any]:
    """A location's path and pyarrow filesystem, through fsspec: pyarrow's own S3 has trouble with credentials."""
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    filesystem, path = store.filesystem(uri)
    return path, PyFileSystem(FSSpecHandler(filesystem))
