"""Target `scale`: what Ray Train adds to a step, what a second worker gives, and how long a kill stands in the way."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from sonarc.bench.cluster import Job, cluster, until
from sonarc.bench.random_latents import write_encode_stage
from sonarc.bench.resuming import resume_rows
from sonarc.bench.sheet import BenchRow, BenchSheet, measured
from sonarc.bench.timed import read_notes
from sonarc.bench.turns import PATIENCE, Player, at_the_table, take_turns
from sonarc.contracts import store
from sonarc.contracts.config import SonarcConfig
from sonarc.contracts.machine import this_machine
from sonarc.contracts.presets import load
from sonarc.contracts.processes import end_tree, tree
from sonarc.contracts.result import StageRequest, recorded_versions


@dataclass(frozen=True)
class ScaleSize:
    """What is trained, on how much, and how often everything is measured.

    Attributes:
        overrides: of the laptop's config: its model.
        batch: clips a step of one worker with two threads, or of two workers with one each.
        steps: of a turn.
        rounds: turns of each.
        kills: of each kind.
    """

    overrides: tuple[str, ...] = ()
    batch: int = 64
    clips: int = 512
    steps: int = 4
    rounds: int = 8
    kills: int = 3


def measure(size: ScaleSize | None = None) -> BenchSheet:
    """The sheet `scale`."""
    size = size or ScaleSize()
    with TemporaryDirectory(prefix="sonarc-bench-") as place:
        folder = Path(place)
        rows = [*_training_rows(folder / "training", size), *resume_rows(_made(folder / "kills"), size.kills)]
    return BenchSheet(
        name="scale",
        machine=this_machine(),
        versions=recorded_versions(),
        command="make bench-scale",
        rows=tuple(rows),
    )


def _training_rows(folder: Path, size: ScaleSize) -> Iterator[BenchRow]:
    half = size.batch // 2
    encode = write_encode_stage(folder, _config(size, 1, 1, half), clips=size.clips)
    with ExitStack() as running:

        def over_ray(name: str, workers: int, threads: int, batch: int) -> Callable[[], Player]:
            def start() -> Player:
                place = _made(folder / name)
                ray = running.enter_context(cluster(place))
                job = Job(_request(place, encode, _config(size, workers, threads, batch)), ray, "ray_jobs.timed",
                          ("--notes", str(place / name)))  # fmt: skip
                job.start()
                running.callback(job.kill)
                return Player(place / name, lambda: [*ray.members(), *job.members()])

            return start

        def bare(name: str, threads: int, batch: int) -> Callable[[], Player]:
            def start() -> Player:
                place = _made(folder / name)
                process = _bare(place, place / name, _request(place, encode, _config(size, 1, threads, batch)))
                running.callback(process.wait)
                running.callback(end_tree, process.pid)
                return Player(place / name, lambda: tree(process.pid))

            return start

        starts: dict[str, float] = {}
        players = {
            "alone": bare("alone", 1, half),
            "beside": bare("beside", 1, half),
            "bare": bare("bare", 2, size.batch),
            "ray": over_ray("ray", 1, 2, size.batch),
            "pair": over_ray("pair", 2, 1, size.batch),
        }
        timed = {name: _first_step(name, start, starts) for name, start in players.items()}
        with at_the_table(timed) as seated:
            hands = [("bare",), ("ray",), ("alone",), ("alone", "beside"), ("pair",)]
            found = take_turns(seated, hands, size.steps, size.rounds)
    for hand, seconds in found.items():
        yield measured(f"step_seconds.{'_'.join(hand)}", seconds, "s", "lower")
    overhead = [ratio - 1 for ratio in _ratios(found["ray",], found["bare",])]
    yield measured("train_overhead", overhead, "", "lower", wanted=0.05, floor=0.0)
    limit = measured("limit", _ratios(found["alone",], found["alone", "beside"]), "", "higher").value
    yield measured("ddp_efficiency_2", _ratios(found["alone",], found["pair",]), "", "higher", floor=limit)
    yield measured("ddp_over_threads_2", _ratios(found["bare",], found["pair",]), "", "higher")
    for name in ("bare", "ray", "pair"):
        yield measured(f"start_seconds.{name}", [starts[name]], "s", "lower")


def _first_step(name: str, start: Callable[[], Player], starts: dict[str, float]) -> Callable[[], Player]:
    def timed() -> Player:
        begun = time.monotonic()
        player = start()
        until(lambda: bool(read_notes(player.notes)), f"the first step of {name}", PATIENCE)
        starts[name] = player.steps()[0][1] - begun
        return player

    return timed


def _bare(place: Path, notes: Path, request: StageRequest) -> subprocess.Popen[bytes]:
    uri = store.join(place.as_uri(), "request.json")
    store.write_json(uri, request.model_dump(mode="json"))
    with (place / "bare.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "ray_jobs.timed", "--request", uri, "--notes", str(notes), "--bare"],
            env=os.environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip


def _config(size: ScaleSize, workers: int, threads: int, batch: int) -> SonarcConfig:
    endless = ["pretrain.steps=1000000", "pretrain.checkpoint_every=1000000"]
    compute = [f"compute.workers={workers}", f"compute.threads={threads}"]
    return load("laptop", [*endless, *compute, f"pretrain.batch={batch}", *size.overrides])


def _request(place: Path, encode: str, config: SonarcConfig) -> StageRequest:
    return StageRequest(
        stage="pretrain", store=place.as_uri(), config=config, inputs={"encode": encode},
        progress=str(place / "progress.jsonl"),
    )  # fmt: skip


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def _ratios(values: list[float], others: list[float]) -> list[float]:
    return [value / other for value, other in zip(values, others, strict=True)]
