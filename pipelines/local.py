"""`sonarc run` on one machine: a local Ray, kfp's local runner, MLflow on SQLite, a folder as the store.

Everything started here ends here, on success, failure and Ctrl-C alike; only the endpoint stays, recorded in
`<runs>/serve.json`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from components.launch import StageFailed, StageRecord
from pipelines.bars import Bars
from pipelines.containers import Containers, ray_in_container, standing_server
from pipelines.local_ray import LocalRay, local_ray, standing_ray
from pipelines.places import Places
from serving import control
from sonarc.contracts import store
from sonarc.contracts.config import SonarcConfig
from sonarc.contracts.errors import ConfigError, GateRefused, NothingNew, SonarcError, StageError
from sonarc.contracts.processes import end_tree
from sonarc.contracts.result import StageFailure, Stopwatch
from sonarc.contracts.stages import STAGES
from sonarc.report.html import write_report
from sonarc.report.summary import GateLine, ModelLine, RuleLine, RunSummary, summarize, write_summary
from sonarc.tracking.gate import Verdict, read_verdict
from sonarc.tracking.registry import Registry

POLL_SECONDS = 0.2
SCHEDULE_VARIABLE, FIRE_VARIABLE = "SONARC_SCHEDULE", "SONARC_SCHEDULE_FIRE"
"""By which a schedule's keeper tells a run what it answers."""


@dataclass(frozen=True)
class RunOutcome:
    """How a local run went.

    Attributes:
        folder: the run's folder, which `<runs>/latest` points at.
        error: why it ended early, or why the gate refused the candidate; None when all went well.
    """

    summary: RunSummary
    folder: Path
    error: SonarcError | None


class StageFailedError(SonarcError):
    """A stage's own error, with its own exit code."""

    def __init__(self, failed: StageFailed) -> None:
        super().__init__(f"{failed.stage}: {failed.failure.message}", failed.failure.hint)
        self.stage = failed.stage
        self.code = failed.failure.code
        self.exit_code = failed.exit_code


def run_pipeline(
    config: SonarcConfig,
    places: Places,
    *,
    until: str = "smoke",
    quiet: bool = False,
    runner: Literal["process", "docker"] = "process",
) -> RunOutcome:
    """Run the pipeline and leave `<runs>/latest` with summary.json, report.html, samples/ and logs.

    Components, Ray and the endpoint are processes of this machine, or, with the runner `docker`, containers.
    Ctrl-C passes through after everything this run started has ended.
    """
    from sonarc.tracking.outbox import OUTBOX
    from sonarc.tracking.runs import EXPERIMENT, OUTCOME_TAG, close_parent, open_parent, parent_run

    if places.ray and runner == "docker":
        raise ConfigError(
            f"Containers have a Ray of their own, and not the one at {places.ray}.", "Leave out --runner docker."
        )
    watch, started = Stopwatch(), datetime.now(UTC)
    run_id = f"{started:%Y%m%d-%H%M%S}-{config.sha256()[:8]}"
    folder = places.runs / run_id
    folder.mkdir(parents=True)
    tree = config.model_dump(mode="json")
    store.write_json(str(folder / "config.json"), tree)
    tags = {"sonarc.preset": config.preset, "sonarc.config_sha256": config.sha256(), **_fire_tags()}
    outbox = store.join(places.store, OUTBOX)
    parent = open_parent(places.tracking, EXPERIMENT, run_id, tree, tags, outbox)
    containers = Containers.of(config, places.runs, places.store, places.tracking) if runner == "docker" else None
    error: SonarcError | None = None
    try:
        with Bars(folder / "progress.jsonl", quiet=quiet) as bars, _server_of_failed_run_ends(places.runs):
            bars.say(f"run {run_id}: {f'on the Ray at {places.ray}' if places.ray else 'starting a local Ray'}")
            with _machinery(config, places, folder, parent.parent_run_id, containers) as ray:
                _execute(folder, config, places, until, parent.model_dump_json(), ray, bars, containers)
    except SonarcError as caught:
        error = caught
    except BaseException:
        close_parent(parent, "KILLED")
        raise
    records = stage_records(folder)
    verdict = _verdict(records)
    if error is None and verdict is not None and not verdict.passed:
        error = GateRefused(verdict.why, "Nothing was promoted. The table above has every rule and its figures.")
    summary = summarize(
        run_id=run_id,
        config=config,
        started=started.isoformat(timespec="seconds"),
        total_seconds=watch.seconds,
        results={name: record.result for name, record in records.items()},
        cached={name: record.cached for name, record in records.items()},
        wall_seconds={name: record.seconds for name, record in records.items()},
        gate=_gate_line(verdict),
        model=_model_line(config, places) if "promote" in records else None,
        endpoint=_endpoint(places.runs) if "smoke" in records else None,
        error=None if error is None else StageFailure(code=error.code, message=error.message, hint=error.hint),
        failed_stage=error.stage if isinstance(error, StageFailedError) else None,
    )
    _leave(folder, summary, records)
    run = parent_run(parent)
    for name in ("summary.json", "report.html"):
        run.log_file(folder / name)
    for sample in sorted((folder / "samples").glob("*")):
        run.log_file(sample, "samples")
    run.log_tags({OUTCOME_TAG: summary.status})
    close_parent(parent, "FINISHED" if error is None or summary.status == "nothing_new" else "FAILED")
    return RunOutcome(summary, folder, error)


def _fire_tags() -> dict[str, str]:
    """Which schedule, and which of its fires, this run answers."""
    names = {"sonarc.schedule": SCHEDULE_VARIABLE, "sonarc.schedule_fire": FIRE_VARIABLE}
    return {tag: os.environ[name] for tag, name in names.items() if os.environ.get(name)}


@contextlib.contextmanager
def _machinery(
    config: SonarcConfig, places: Places, folder: Path, run: str, containers: Containers | None
) -> Iterator[LocalRay]:
    """The Ray of a run and, in containers, who starts the endpoint."""
    cpus, log = config.compute.logical_cpus, folder / "ray.log"
    if places.ray:
        with standing_ray(places.ray, run or folder.name) as ray:
            yield ray
    elif containers is None:
        with local_ray(cpus, log) as ray:
            yield ray
    else:
        with standing_server(places.runs, containers), ray_in_container(cpus, log, containers) as ray:
            yield ray


@contextlib.contextmanager
def _server_of_failed_run_ends(runs: Path) -> Iterator[None]:
    """An endpoint that this run started stays only if the run succeeds; one that was there before always stays."""
    before = control.status(runs)
    try:
        yield
    except BaseException:
        after = control.status(runs)
        if control.starting(runs) or (after is not None and (before is None or before.pid != after.pid)):
            control.withdraw(runs)
        raise


def _verdict(records: dict[str, StageRecord]) -> Verdict | None:
    if "gate" not in records:
        return None
    return read_verdict(records["gate"].result.outputs["verdict"].uri)


def _gate_line(verdict: Verdict | None) -> GateLine | None:
    if verdict is None:
        return None
    rules = tuple(RuleLine(rule=rule.rule, passed=rule.passed, detail=rule.why) for rule in verdict.rules)
    return GateLine(passed=verdict.passed, rules=rules)


def _model_line(config: SonarcConfig, places: Places) -> ModelLine | None:
    settings = config.registry
    champion = Registry(places.tracking, places.store).resolve(settings.model, settings.alias)
    if champion is None:
        return None
    return ModelLine(
        name=champion.model,
        version=champion.version,
        alias=settings.alias,
        package_sha256=champion.package_sha256,
    )


def _endpoint(runs: Path) -> str | None:
    state = control.status(runs)
    return None if state is None else state.address


def _leave(folder: Path, summary: RunSummary, records: dict[str, StageRecord]) -> None:
    """Write the summary, the samples and the report, then point `latest` here."""
    write_summary(str(folder / "summary.json"), summary)
    samples = None
    if "evaluate" in records:
        samples = folder / "samples"
        made = store.fetch_folder(records["evaluate"].result.outputs["samples"].uri, samples)
        if made != samples:
            shutil.copytree(made, samples)
    write_report(summary, samples, folder / "report.html")
    link = folder.parent / "latest"
    fresh = folder.parent / f".latest-{folder.name}"
    fresh.symlink_to(folder.name)
    fresh.replace(link)


def _execute(
    folder: Path,
    config: SonarcConfig,
    places: Places,
    until: str,
    tracking: str,
    ray: LocalRay,
    bars: Bars,
    containers: Containers | None,
) -> None:
    """Run the DAG in a process group of its own and follow its progress."""
    document = {
        "until": until,
        "containers": containers.document() if containers else None,
        "pipeline_root": str(folder / "kfp"),
        "parameters": {
            "config": config.model_dump_json(),
            "store": places.store,
            "tracking": tracking,
            "ray_address": ray.address,
            "progress": str(folder / "progress.jsonl"),
        },
    }
    store.write_json(str(folder / "run.json"), document)
    if containers:
        (folder / "kfp").mkdir()
        containers.give(folder)
    log = folder / "pipeline.log"
    with log.open("ab") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "pipelines.execute", "--run", str(folder / "run.json")],
            env=os.environ | ray.env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(POLL_SECONDS)
            bars.update()
            if child.returncode is not None:
                break
    finally:
        if child.poll() is None:
            end_tree(child.pid)
            child.wait()
    if (folder / "error.json").exists():  # of a container that ends at once kfp may not see how it ended
        failed = StageFailed.model_validate_json((folder / "error.json").read_bytes())
        if failed.failure.code == NothingNew.code:
            raise NothingNew(failed.failure.message, failed.failure.hint)
        raise StageFailedError(failed)
    if child.returncode != 0:
        raise StageError(f"The pipeline ended with code {child.returncode}.", f"Its log: {log}")
    if lost := silent_stages(folder, until):
        raise StageError(f"{', '.join(lost)} ended without a record.", f"Its log: {log}")


def silent_stages(folder: Path, until: str) -> list[str]:
    """Stages that a run up to `until` cannot do without, and that left no record: kfp takes a container that ends at
    once for one that did its work. What follows the gate is missed only where the gate was passed."""
    records, wanted = stage_records(folder), {until}
    for stage in reversed(STAGES):  # a stage comes after its inputs
        wanted |= set(STAGES[stage].inputs) if stage in wanted else set()
    if "gate" not in records or records["gate"].result.metrics.get("passed") != 1.0:
        wanted -= {"promote", "deploy", "smoke"}
    return [stage for stage in STAGES if stage in wanted and stage not in records]


def stage_records(folder: Path) -> dict[str, StageRecord]:
    """The records that stages left in a run's folder, by stage."""
    found = (folder / "stages").glob("*.json")
    records = [StageRecord.model_validate_json(path.read_bytes()) for path in found]
    return {record.stage: record for record in sorted(records, key=lambda r: list(STAGES).index(r.stage))}
