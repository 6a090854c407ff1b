"""Target `serve`: what the endpoint costs above the bare model, and what it does in a crowd, a switch and a crash.

    python -m serving.bench                         # the last run's champion, about 20 minutes
    python -m serving.bench --seconds 5 --soak 20   # the same, briefly

The bare model and the generator replica run on one core with one thread; ingress, proxy and clients on the others.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from serving import control
from serving.load import Answer, Crowd
from serving.state import ServeState, own_processes
from sonarc.bench.__main__ import FOLDER, last_package, table
from sonarc.bench.sheet import BenchRow, BenchSheet, measured, write_sheet
from sonarc.contracts import store
from sonarc.contracts.config import ServeConfig
from sonarc.contracts.errors import ServingError, SonarcError
from sonarc.contracts.hashing import sha256_path
from sonarc.contracts.machine import this_machine
from sonarc.contracts.package import read_package
from sonarc.contracts.result import recorded_versions

OVERHEAD_MS, THROUGHPUT, RSS_GROWTH = 15.0, 0.9, 0.05
CLIENTS = (1, 2, 8, 32)
OVERLOAD = 4
"""Clients of the overload for every place that the server has."""
STEPS = 4
RAW_REPEATS = 9
RECOVERY_S = 180.0
"""Longest time until a killed generator is replaced, seconds: it has a model to load."""
GENERATOR = "ServeReplica:sonarc:generator"


@dataclass(frozen=True)
class Raw:
    """The bare model on one core: seconds of each repeat, alone and in whole batches."""

    alone_s: list[float]
    batch_s: list[float]
    max_seconds: float


@dataclass
class Figures:
    """Rows so far."""

    rows: list[BenchRow] = field(default_factory=list)

    def add(self, name: str, values: Sequence[float], unit: str, better: Any, wanted: float | None = None) -> None:
        """A row; with no value there is none."""
        if values:
            self.rows.append(measured(name, list(values), unit, better, wanted=wanted))


def measure(package_uri: str, *, seconds: float, soak_s: float, console: Console) -> BenchSheet:
    """Everything, with the package at `package_uri`.

    Args:
        seconds: of each crowd.
        soak_s: of the crowd in which memory is watched.

    Raises:
        ServingError: fewer than two cores, or the server did not come up.
    """
    machine, cores = this_machine(), sorted(os.sched_getaffinity(0))  # before this process is pinned
    if len(cores) < 2:
        raise ServingError("The benchmark needs two cores: one for the model.", "Run it on a larger machine.")
    config = ServeConfig(threads=1)
    console.print("the bare model …")
    raw = _raw_apart(package_uri, config.max_batch, cores[-1])
    figures = Figures()
    figures.add("raw.alone_s", raw.alone_s, "s", "lower")
    figures.add("raw.batch_s", raw.batch_s, "s", "lower")
    scratch = Path(tempfile.mkdtemp(prefix="sonarc-bench-"))
    try:
        sha256 = read_package(package_uri).sha256()
        state = control.deploy(package_uri, sha256, config, scratch, version="1")
        _pin(state, cores)
        crowd = Crowd(state.address, {"seconds": raw.max_seconds, "steps": STEPS})
        _crowds(crowd, raw, config, figures, seconds, console)
        _soak(crowd, state, figures, soak_s, console)
        _switch(crowd, package_uri, config, scratch, figures, seconds, console)
        _kill(crowd, state, figures, seconds, console)
    finally:
        control.stop(scratch)
        shutil.rmtree(scratch, ignore_errors=True)
    return BenchSheet(
        name="serve",
        machine=machine,
        versions=recorded_versions(),
        command=f"python -m serving.bench --seconds {seconds:g} --soak {soak_s:g}",
        rows=tuple(figures.rows),
    )


def _crowds(crowd: Crowd, raw: Raw, config: ServeConfig, figures: Figures, seconds: float, console: Console) -> None:
    places = config.max_queued + config.max_batch
    batch_s = statistics.median(raw.batch_s)
    asyncio.run(crowd.ask(config.max_batch, min(seconds, 5.0)))  # every batch size has run once
    for clients in (*CLIENTS, OVERLOAD * places):
        console.print(f"{clients} clients …")
        begun = time.monotonic()
        answers = asyncio.run(crowd.ask(clients, seconds))
        took = time.monotonic() - begun
        made = [answer for answer in answers if answer.status == 200]
        name = "overload" if clients not in CLIENTS else f"clients_{clients}"
        figures.add(f"{name}.clips_per_s", [len(made) / took], "clips/s", "higher")
        figures.add(f"{name}.p50_s", [_quantile(made, 0.5)], "s", "lower")
        figures.add(f"{name}.p99_s", [_quantile(made, 0.99)], "s", "lower")
        if clients == 1:
            overheads = [1_000 * (answer.seconds - answer.generate_s) for answer in made]
            figures.add("overhead_ms", [statistics.median(overheads)], "ms", "lower", OVERHEAD_MS)
            slower = 1_000 * (_quantile(made, 0.5) - statistics.median(raw.alone_s))
            figures.add("above_raw_ms", [slower], "ms", "lower")
        if clients == CLIENTS[-1]:
            fraction = len(made) / took / (config.max_batch / batch_s)
            figures.add("throughput_fraction", [fraction], "of raw", "higher", THROUGHPUT)
        if name == "overload":
            other = sum(answer.status not in (200, 429) for answer in answers)
            figures.add("overload_other_status", [other], "answers", "lower", 0)
            # Whoever gets the last place waits for all before it, and for the batch that runs.
            bound_s = (math.ceil(config.max_queued / config.max_batch) + 2) * batch_s / THROUGHPUT
            figures.add("admitted_p99_s", [_quantile(made, 0.99)], "s", "lower", bound_s)


def _soak(crowd: Crowd, state: ServeState, figures: Figures, seconds: float, console: Console) -> None:
    console.print(f"8 clients for {seconds:g} s, memory watched …")
    before = _resident(state)
    asyncio.run(crowd.ask(8, seconds))
    after = _resident(state)
    name = "rss_growth_10min" if seconds >= 600 else "rss_growth"
    figures.add(name, [max(0.0, after / before - 1)], "of before", "lower", RSS_GROWTH)
    figures.add("rss_mb", [after / 1e6], "MB", "lower")


def _switch(
    crowd: Crowd, package_uri: str, config: ServeConfig, folder: Path, figures: Figures, seconds: float,
    console: Console,
) -> None:  # fmt: skip
    console.print("the package is switched under load …")
    other_uri, sha256 = _twin(package_uri, folder)
    swapped: list[float] = []

    def switch() -> None:
        begun = time.monotonic()
        control.deploy(other_uri, sha256, config, folder, version="2")
        swapped.append(time.monotonic() - begun)

    answers = _meanwhile(crowd, switch, seconds)
    figures.add("switch_s", swapped, "s", "lower")
    figures.add("switch_failed", [sum(answer.status != 200 for answer in answers)], "answers", "lower", 0)
    if answers and answers[-1].package != sha256:
        raise ServingError("The switched package does not answer.", "Its log says more.")


def _kill(crowd: Crowd, state: ServeState, figures: Figures, seconds: float, console: Console) -> None:
    console.print("the generator is killed under load …")
    killed: list[float] = []

    def kill() -> None:
        for process in own_processes(state.id):
            if _is_generator(process):
                process.kill()
        killed.append(time.monotonic())

    answers = _meanwhile(crowd, kill, seconds)
    while answers[-1].status != 200:
        if time.monotonic() - killed[0] > RECOVERY_S:
            raise ServingError(f"The server was not back {RECOVERY_S:g} s after a crash.", "Its log says more.")
        answers += asyncio.run(crowd.ask(1, 0.5))
    figures.add("kill_recovery_s", [time.monotonic() - killed[0]], "s", "lower")
    lost = sum(answer.status != 200 and not answer.retryable for answer in answers)
    figures.add("kill_lost_admitted", [lost], "answers", "lower", 0)
    figures.add("kill_refused", [sum(a.status != 200 and a.retryable for a in answers)], "answers", "lower")


def _meanwhile(crowd: Crowd, act: Callable[[], None], seconds: float) -> list[Answer]:
    """8 clients, and something that happens after the first second; they go on until well after it."""
    done = threading.Event()

    def later() -> None:
        time.sleep(1.0)
        try:
            act()
        finally:
            done.set()

    thread = threading.Thread(target=later)
    thread.start()
    answers = asyncio.run(crowd.ask(8, seconds))
    while not done.is_set():
        answers += asyncio.run(crowd.ask(8, 1.0))
    thread.join()
    return answers + asyncio.run(crowd.ask(8, 3.0))


def _quantile(answers: Sequence[Answer], q: float) -> float:
    ordered = sorted(answer.seconds for answer in answers)
    if not ordered:
        raise ServingError("No request of a whole crowd was answered with audio.", "Look at the server's log.")
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def _twin(package_uri: str, folder: Path) -> tuple[str, str]:
    """A copy of a package that has another hash: its evaluation card ends in one more line."""
    place = shutil.copytree(store.fetch_folder(package_uri, folder / "fetched"), folder / "twin")
    scores, package = place / "scores.json", place / "package.json"
    scores.write_text(scores.read_text("utf-8") + "\n", "utf-8")
    manifest = json.loads(package.read_text("utf-8"))
    manifest["files"]["scores.json"] = sha256_path(scores)
    package.write_text(json.dumps(manifest), "utf-8")
    return place.as_uri(), read_package(place.as_uri()).sha256()


def _resident(state: ServeState) -> float:
    """Memory of all processes of a server, bytes; what they share counts once."""
    total = 0
    for process in own_processes(state.id):
        try:
            total += process.memory_full_info().pss
        except psutil.NoSuchProcess:
            continue
    return float(total)


def _is_generator(process: psutil.Process) -> bool:
    try:
        return GENERATOR in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False


def _pin(state: ServeState, cores: Sequence[int]) -> None:
    """The generator on the last core, everything else, this process too, on the others."""
    generators = 0
    for process in [*own_processes(state.id), psutil.Process()]:
        mine = _is_generator(process)
        generators += mine
        for task in (Path("/proc") / str(process.pid) / "task").iterdir():
            try:
                os.sched_setaffinity(int(task.name), {cores[-1]} if mine else set(cores[:-1]))
            except ProcessLookupError:
                continue
    if generators != 1:
        raise ServingError(f"{generators} generator processes were found, not one.", "Look at the server's log.")


def _raw_apart(package_uri: str, batch: int, core: int) -> Raw:
    """The bare model in a process of its own, pinned before torch starts its threads."""
    command = [sys.executable, "-m", "serving.bench", "--raw", package_uri, "--batch", str(batch), "--core", str(core)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise ServingError("The bare model could not be measured.", "See above.")
    return Raw(**json.loads(done.stdout.splitlines()[-1]))


def _raw(package_uri: str, batch: int, core: int) -> dict[str, Any]:
    os.sched_setaffinity(0, {core})
    import torch

    from sonarc.runtime.generator import Generator

    torch.set_num_threads(1)
    generator = Generator.load(package_uri)
    generator.warm_up(STEPS)
    seconds = generator.max_seconds

    def timed(clips: int, repeat: int) -> float:
        prompts = [f"take {repeat} of {clip}" for clip in range(clips)]
        begun = time.perf_counter()
        generator.generate(prompts, [seconds] * clips, list(range(clips)), steps=STEPS)
        return time.perf_counter() - begun

    for clips in (1, batch):
        timed(clips, -1)
    alone = [timed(1, repeat) for repeat in range(RAW_REPEATS)]
    return {"alone_s": alone, "batch_s": [timed(batch, r) for r in range(RAW_REPEATS)], "max_seconds": seconds}


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0, or the error's own."""
    parser = argparse.ArgumentParser(prog="python -m serving.bench", description="Measure, into bench/serve.json.")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each crowd (default: 60)")
    parser.add_argument("--soak", type=float, default=600.0, help="of the watch over memory (default: 600)")
    parser.add_argument("--package", default="", help="URI of a package (default: the last run's)")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of pipeline runs (default: runs)")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the sheet goes (default: bench)")
    parser.add_argument("--raw", default="", help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, default=8, help=argparse.SUPPRESS)
    parser.add_argument("--core", type=int, default=0, help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    console = Console()
    try:
        if asked.raw:
            print(json.dumps(_raw(asked.raw, asked.batch, asked.core)))
            return 0
        package = asked.package or last_package(asked.runs)
        sheet = measure(package, seconds=asked.seconds, soak_s=asked.soak, console=console)
        console.print(table(sheet))
        console.print(f"Wrote {write_sheet(asked.folder, sheet)}")
    except SonarcError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
