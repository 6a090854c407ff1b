"""How long a training stands still after a kill: from the kill to the first step it had not yet taken."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from sonarc.bench.cluster import Cluster, Job, cluster, until
from sonarc.bench.random_latents import write_encode_stage
from sonarc.bench.sheet import BenchRow, measured
from sonarc.bench.timed import read_notes
from sonarc.contracts.presets import load
from sonarc.contracts.result import StageRequest

PATIENCE = 600.0
STEPS_BEFORE = 25
CHECKPOINT_EVERY = 10


def resume_rows(folder: Path, repeats: int) -> Iterator[BenchRow]:
    """Kills of a worker, the driver and the raylet of a small training on a cluster of one machine."""
    config = load(
        "ci",
        ["pretrain.steps=1000000", f"pretrain.checkpoint_every={CHECKPOINT_EVERY}", "pretrain.batch=16",
         "dit.width=128", "dit.depth=4", "compute.threads=1", "compute.max_failures=2"],
    )  # fmt: skip
    encode = write_encode_stage(folder / "encode", config)
    with cluster(folder) as running:
        for name, kill in KILLS.items():
            seconds = []
            for number in range(repeats):
                place = folder / f"{name}-{number}"
                request = StageRequest(
                    stage="pretrain", store=place.as_uri(), config=config, inputs={"encode": encode},
                    progress=str(place / "progress.jsonl"),
                )  # fmt: skip
                notes = place / "notes"
                seconds.append(_still(Job(request, running, "ray_jobs.timed", ("--notes", str(notes))), notes, kill))
            yield measured(f"resume_seconds_{name}", seconds, "s", "lower")


def _still(job: Job, notes: Path, kill: Callable[[Job], None]) -> float:
    job.start()
    try:
        until(lambda: _newest(notes) >= STEPS_BEFORE, f"{STEPS_BEFORE} steps", PATIENCE)
        killed = time.monotonic()
        kill(job)
        done = _newest(notes)  # a worker that outlives its driver for a moment takes more steps: they are lost
        until(lambda: _newest(notes) > done, "the training to go on", PATIENCE)
        return next(clock for step, clock in read_notes(notes) if step > done) - killed
    finally:
        job.kill()
        until(lambda: not _workers(job.cluster), "the workers to end", PATIENCE)


def _newest(notes: Path) -> int:
    return max((step for step, _ in read_notes(notes)), default=0)


def _workers(running: Cluster) -> list[object]:
    return list(running.processes("RayTrainWorker"))


def _kill_worker(job: Job) -> None:
    for process in job.cluster.processes("RayTrainWorker"):
        process.kill()


def _kill_driver(job: Job) -> None:
    """The driver dies; whoever watches it starts it again once Ray has ended its workers."""
    job.kill()
    until(lambda: not _workers(job.cluster), "the dead driver's worker to end", PATIENCE)
    job.start()


def _kill_raylet(job: Job) -> None:
    """The raylet dies, and with it the only machine: another head is started, and the driver on it."""
    for process in job.cluster.processes("raylet/raylet"):
        process.kill()
    job.finish(PATIENCE)
    job.cluster.stop()
    job.cluster.start()
    job.start()


KILLS: dict[str, Callable[[Job], None]] = {"worker": _kill_worker, "driver": _kill_driver, "raylet": _kill_raylet}
