"""Tune the ARC loss weights: short trials, scored by what their samples sound like.

The objective is the Fréchet distance of 4-step samples to the validation split, with adherence as a constraint, or a
Pareto front of both and diversity: never a training loss, never the test split. Trials are Ray tasks; this process
claims them from a study, tells it what they measured, and may be one of several that do so, on several hosts. The
study outlives it, so that a killed job goes on with the trial it was at.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray

from ray_jobs.job import Outcome, StageContext, main
from ray_jobs.parallel import plain_errors
from sonarc.contracts import store
from sonarc.contracts.computing import computing_env
from sonarc.contracts.config import ComputeConfig
from sonarc.contracts.dataset import read_latents
from sonarc.contracts.result import Artifact
from sonarc.contracts.tuning import Trial
from sonarc.tuning.choice import choose
from sonarc.tuning.figures import study_figures
from sonarc.tuning.ledger import Claimed, Ledger
from sonarc.tuning.results import Measured, diverged
from sonarc.tuning.space import search_space
from sonarc.tuning.storage import alone, place_of
from sonarc.tuning.trial import Measure, Report, Settings, measure

logger = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
"""Between two looks at what other coordinators do; a heartbeat, if that is shorter."""


def run(context: StageContext) -> Outcome:
    """Search the weights and write `weights.json`."""
    return tune(context, measure)


def tune(context: StageContext, measure: Measure) -> Outcome:
    """Search the weights, each trial a Ray task that calls `measure`."""
    config = context.config
    latents = context.input("encode", "latents")
    settings = Settings(
        config,
        base_uri=context.input("pretrain", "base").uri,
        dataset_uri=read_latents(latents.uri).dataset_uri,
        latents_uri=latents.uri,
        reference_uri=context.input("reference", "reference").uri,
    )
    with _ledger(context) as ledger:
        trials = _Search(context, settings, measure, ledger).run()
        tuned = choose(trials, config.tune, search_space(config.tune, config.arc))
        uri = store.join(context.folder, "weights.json")
        digest = store.write_json(uri, tuned.model_dump(mode="json"))
    for picture in study_figures(tuned):
        drawn = context.scratch / f"{picture.name}.svg"
        drawn.write_text(picture.svg, encoding="utf-8")
        context.run.log_file(drawn, "study")
    best = next(trial for trial in trials if trial.number == tuned.chosen)
    logger.info("trial %d of %d was chosen: %s", tuned.chosen, len(trials), best.weights)
    figures = {name: getattr(best, name) for name in ("frechet", "adherence", "diversity")}
    return Outcome(
        {"weights": Artifact(uri=uri, sha256=digest)},
        metrics={
            **{name: value for name, value in figures.items() if value is not None},
            **best.weights.model_dump(exclude_none=True),
        },
        counts={
            "trials": len(trials),
            "failed": sum(trial.failed for trial in trials),
            "stopped": sum(trial.stopped for trial in trials),
            "chosen": tuned.chosen,
        },
    )


@contextmanager
def _ledger(context: StageContext) -> Iterator[Ledger]:
    """The study of this stage's key. One in a file is in the user's cache, and gone once its outcome is written."""
    key = context.request.key()
    folder = store.cache_root() / "tune" / key
    place = place_of(folder)
    with contextlib.nullcontext() if place.shared else alone(folder):
        ledger = Ledger(place, f"sonarc-tune-{key}", context.config)
        try:
            yield ledger
        finally:
            ledger.close()
        if not place.shared:
            shutil.rmtree(folder, ignore_errors=True)


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class Rungs:
    """Where trials on their way ask whether to go on, and the coordinator answers."""

    def __init__(self) -> None:
        self._asked: asyncio.Queue[tuple[int, int, float]] = asyncio.Queue()
        self._answers: dict[tuple[int, int], asyncio.Future[bool]] = {}

    async def report(self, number: int, step: int, distance: float) -> bool:
        """A trial's question; returns with its answer, whether to stop."""
        answer = self._answers[number, step] = asyncio.get_running_loop().create_future()
        await self._asked.put((number, step, distance))
        return await answer

    async def next(self) -> tuple[int, int, float]:
        """The next question."""
        return await self._asked.get()

    async def answer(self, number: int, step: int, stop: bool) -> None:
        """The coordinator's answer."""
        if (waiting := self._answers.pop((number, step), None)) is not None and not waiting.done():
            waiting.set_result(stop)


class _Search:
    """One coordinator's part in a study."""

    def __init__(self, context: StageContext, settings: Settings, measure: Measure, ledger: Ledger) -> None:
        self._context, self._settings, self._ledger = context, settings, ledger
        self._task = _trial_task(context.config.compute, measure)
        self._running: dict[Any, Claimed] = {}
        self._logged: set[int] = set()
        self._rungs: Any = Rungs.remote() if context.config.tune.rungs else None
        self._question: Any = self._rungs.next.remote() if self._rungs else None

    def run(self) -> list[Trial]:
        """Every trial of the study, once all have come to their end."""
        for trial in self._ledger.trials():
            self._log(trial, {}, recovered=True)
        try:
            with plain_errors():
                while not self._ledger.finished():
                    self._ledger.retry_lost()
                    self._claim()
                    self._wait()
        finally:
            for claimed in self._running.values():
                self._ledger.release(claimed)
            if self._rungs is not None:
                ray.kill(self._rungs)
        trials = self._ledger.trials()
        for trial in trials:
            if trial.number not in self._logged:
                self._log(trial, {}, recovered=True)
        return trials

    def _claim(self) -> None:
        tune = self._context.config.tune
        while len(self._running) < tune.parallel and (claimed := self._ledger.claim()) is not None:
            report = _reporter(self._rungs, claimed.number)
            self._running[self._task.remote(self._settings, claimed.weights, report)] = claimed
            self._progress(f"trial {claimed.number}: {claimed.weights!r}")

    def _wait(self) -> None:
        """Until something comes of a trial, or it is time to look at the others'."""
        waiting = [*self._running, *([self._question] if self._question is not None else [])]
        patience = min(LOOK_SECONDS, float(self._ledger.heartbeat))
        if not waiting:
            time.sleep(patience)
            return
        ready, _ = ray.wait(waiting, timeout=patience)
        for reference in ready:
            if reference == self._question:
                self._answer(*ray.get(reference))
            else:
                self._settle(self._running[reference], _result(reference))
                del self._running[reference]

    def _answer(self, number: int, step: int, distance: float) -> None:
        """Whether a trial that asked is to stop. One that was given up in the meantime is."""
        claimed = next((claimed for claimed in self._running.values() if claimed.number == number), None)
        stop = claimed is None or self._ledger.report(claimed, step, distance)
        if stop:
            logger.info("trial %d stops after step %d, at a distance of %.3f", number, step, distance)
        self._rungs.answer.remote(number, step, stop)
        self._question = self._rungs.next.remote()

    def _settle(self, claimed: Claimed, measured: Measured) -> None:
        if self._ledger.tell(claimed, measured):
            self._log(next(t for t in self._ledger.trials() if t.number == claimed.number), measured.curves)
        self._progress()

    def _progress(self, message: str = "") -> None:
        done, total = len(self._logged), self._context.config.tune.trials
        self._context.progress(done, total, unit="trials", message=message)

    def _log(self, trial: Trial, curves: dict[int, dict[str, float]], *, recovered: bool = False) -> None:
        """One nested run a trial, whichever coordinator measured it."""
        self._logged.add(trial.number)
        with self._context.run.child(f"trial-{trial.number}") as run:
            state = "stopped" if trial.stopped else "failed" if trial.failed else "measured"
            settings = trial.weights.model_dump(exclude_none=True)
            run.log_params({**settings, "number": trial.number, "recovered": recovered, "state": state})
            for step, metrics in curves.items():
                run.log_metrics(metrics, step=step)
            figures = {name: getattr(trial, name) for name in ("frechet", "adherence", "diversity")}
            run.log_metrics({name: value for name, value in figures.items() if value is not None})
            if (against := trial.against_default) is not None:
                run.log_metrics({f"against_default_{name}": value for name, value in against.model_dump().items()})


def _trial_task(compute: ComputeConfig, measure: Measure) -> Any:
    """`measure` as a Ray task that reserves what a trial is given."""
    cpus = compute.threads if compute.trial_cpus is None else compute.trial_cpus
    gpus = float(compute.gpu) if compute.trial_gpus is None else compute.trial_gpus
    largest = [(node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0)) for node in ray.nodes()]
    if not any(cpus <= has_cpus and gpus <= has_gpus for has_cpus, has_gpus in largest):
        logger.warning(
            "No node has a trial's %g CPUs and %g GPUs: it waits for one (compute.trial_cpus, compute.trial_gpus).",
            cpus,
            gpus,
        )
    return ray.remote(
        num_cpus=cpus,
        num_gpus=gpus,
        max_retries=1,  # a worker that was killed, for memory most likely
        runtime_env={"env_vars": computing_env(compute.threads)},
    )(measure)


def _reporter(rungs: Any, number: int) -> Report:
    """What a trial calls at its rungs."""

    def report(step: int, distance: float) -> bool:
        return bool(ray.get(rungs.report.remote(number, step, distance)))

    return report


def _result(reference: Any) -> Measured:
    """What a trial measured; one whose process died twice has diverged as far as the search is concerned."""
    try:
        measured: Measured = ray.get(reference)
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError, ray.exceptions.NodeDiedError) as error:
        logger.warning("a trial's process died twice: %s", str(error).splitlines()[0])
        return diverged()
    return measured


if __name__ == "__main__":
    main("tune")
