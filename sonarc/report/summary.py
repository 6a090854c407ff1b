"""`runs/<id>/summary.json`: one document that says what a run did, on what, how well, how fast.

`summarize` builds it from the stages' results; `read_summary` and `write_summary` are its only
reader and writer. The terminal's table, `report.html`, the README's table and the benchmarks all
render this document and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sonarc.contracts import store
from sonarc.contracts.config import SonarcConfig
from sonarc.contracts.dataset import DatasetManifest, Split, SplitCount, read_dataset
from sonarc.contracts.errors import DataError, NothingNew
from sonarc.contracts.machine import Machine, this_machine
from sonarc.contracts.result import StageFailure, StageResult, recorded_versions
from sonarc.contracts.scores import ModelName, Score, ScoreSheet, read_scores
from sonarc.contracts.stages import STAGES
from sonarc.contracts.tuning import TunedWeights

SANITY: dict[str, str] = {
    "silent_fraction": "Silent clips",
    "clipped_fraction": "Clipped clips",
    "nonfinite_fraction": "Clips with NaN or ∞",
    "side_db": "Side against mid",
    "correlation": "Left–right correlation",
    "rolloff_hz": "95 % roll-off",
    "centroid_hz": "Spectral centroid",
    "centroid_spread_hz": "Centroid spread",
}
"""Metrics that say whether audio is sound at all, not how good it is: name → label."""


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class StageLine(_Document):
    """One stage of the run."""

    name: str
    status: Literal["succeeded", "failed", "skipped"]
    """`skipped`: the run ended before it."""
    cached: bool = False
    """Whether an earlier outcome under the same key stood in."""
    seconds: float = Field(default=0.0, ge=0)
    """Wall time in this run, seconds; for a cached stage the time it took to find that out."""
    work_seconds: float = Field(default=0.0, ge=0)
    """Wall time of the work itself when it was done, seconds."""
    key: str = ""
    counts: dict[str, int] = {}
    metrics: dict[str, float] = {}


class DatasetLine(_Document):
    """How much audio the run learned from, and how much it refused."""

    sha256: str
    version: int
    clips: int
    seconds: float
    splits: dict[Split, SplitCount] = {}
    quarantined: dict[str, int] = {}
    """Reason code → refused inputs."""


class RuleLine(_Document):
    """One rule of the gate and how it went."""

    rule: str
    """The rule in words, as `fd_yamnet@4 below the base's`."""
    passed: bool | None
    """None: skipped, there being no champion to compare with."""
    detail: str = ""


class GateLine(_Document):
    """The gate's verdict."""

    passed: bool
    rules: tuple[RuleLine, ...] = ()


class ModelLine(_Document):
    """What was registered."""

    name: str
    version: str
    alias: str
    package_sha256: str


class RunSummary(_Document):
    """`summary.json`."""

    schema_: Literal["sonarc.summary/1"] = Field(default="sonarc.summary/1", alias="schema")
    run_id: str
    preset: str
    config_sha256: str
    status: Literal["succeeded", "nothing_new", "refused", "failed"]
    """`nothing_new`: it ended after ingest, as asked to; `refused`: every stage ran, and the gate said no."""
    started: str
    """UTC, ISO 8601."""
    total_seconds: float = Field(ge=0)
    """Wall time of the whole run, seconds."""
    machine: Machine
    versions: dict[str, str] = {}
    stages: tuple[StageLine, ...] = ()
    dataset: DatasetLine | None = None
    scores: ScoreSheet = ScoreSheet()
    """Every score and difference, the sanity figures among them."""
    tuning: TunedWeights | None = None
    """The search for the loss weights: every trial."""
    gate: GateLine | None = None
    model: ModelLine | None = None
    endpoint: str | None = None
    """Address of the live server."""
    error: StageFailure | None = None

    def stage(self, name: str) -> StageLine | None:
        """The line of one stage, or None."""
        return next((line for line in self.stages if line.name == name), None)

    def sanity(self) -> list[tuple[str, dict[ModelName, Score]]]:
        """Sanity metric → model → its score: real clips, reconstructions, the generator at its main step count."""
        rows = []
        for metric in SANITY:
            found: dict[ModelName, Score] = {}
            for model in ("real", "codec", "generator"):
                scores = [s for s in self.scores.scores if (s.metric, s.model) == (metric, model)]
                if scores:
                    found[model] = min(scores, key=lambda s: abs(s.steps - MAIN_STEPS))
            if found:
                rows.append((metric, found))
        return rows


MAIN_STEPS = 4
"""The step count that headlines compare at."""


def summarize(
    *,
    run_id: str,
    config: SonarcConfig,
    started: str,
    total_seconds: float,
    results: Mapping[str, StageResult],
    cached: Mapping[str, bool],
    wall_seconds: Mapping[str, float],
    gate: GateLine | None = None,
    model: ModelLine | None = None,
    endpoint: str | None = None,
    error: StageFailure | None = None,
    failed_stage: str | None = None,
) -> RunSummary:
    """The summary of a run.

    Args:
        run_id: name of the run.
        config: the tree it ran with.
        started: UTC, ISO 8601.
        total_seconds: wall time of the whole run.
        results: stage → its result, for the stages that ran or were found in the cache.
        cached: stage → whether its result is an earlier one.
        wall_seconds: stage → wall time in this run, seconds.
        gate: the verdict, once there is one.
        model: what was registered, once it was.
        endpoint: address of the live server, once it answers.
        error: why the run ended early; default: the error of the failed stage, if one failed.
        failed_stage: the stage that failed, where it left no result here.

    Returns:
        The summary: `refused` where the verdict is negative, `nothing_new` where `error` says so, else `failed` where
        a stage failed or `error` is given.
    """
    lines = tuple(
        _stage_line(name, results.get(name), cached, wall_seconds, failed=name == failed_stage) for name in STAGES
    )
    failure = error or next((r.error for r in results.values() if r.status == "failed"), None)
    refused = gate is not None and not gate.passed
    quiet = failure is not None and failure.code == NothingNew.code
    return RunSummary(
        run_id=run_id,
        preset=config.preset,
        config_sha256=config.sha256(),
        status="refused" if refused else "nothing_new" if quiet else "failed" if failure else "succeeded",
        started=started,
        total_seconds=round(total_seconds, 2),
        machine=this_machine(),
        versions=recorded_versions(),
        stages=lines,
        dataset=_dataset_line(results.get("ingest")),
        scores=_scores(results.get("evaluate")),
        tuning=_tuning(results.get("tune")),
        gate=gate,
        model=model,
        endpoint=endpoint,
        error=failure,
    )


def read_summary(uri: str) -> RunSummary:
    """The summary at `uri` (the file itself).

    Raises:
        StoreError: there is none. DataError: it does not follow the schema.
    """
    document: Any = store.read_json(uri)
    try:
        return RunSummary.model_validate(document)
    except ValidationError as error:
        raise DataError(f"{uri} does not follow sonarc.summary/1: {error}.", "Run the pipeline again.") from error


def write_summary(uri: str, summary: RunSummary) -> str:
    """Write a summary; returns its sha256."""
    return store.write_json(uri, summary.model_dump(mode="json", by_alias=True))


def _stage_line(
    name: str,
    result: StageResult | None,
    cached: Mapping[str, bool],
    wall_seconds: Mapping[str, float],
    *,
    failed: bool,
) -> StageLine:
    if result is None:
        status: Literal["failed", "skipped"] = "failed" if failed else "skipped"
        return StageLine(name=name, status=status, seconds=round(wall_seconds.get(name, 0.0), 2))
    return StageLine(
        name=name,
        status=result.status,
        cached=cached.get(name, False),
        seconds=round(wall_seconds.get(name, result.seconds), 2),
        work_seconds=round(result.seconds, 2),
        key=result.key,
        counts=result.counts,
        metrics=result.metrics,
    )


def _dataset_line(result: StageResult | None) -> DatasetLine | None:
    if result is None or "dataset" not in result.outputs:
        return None
    manifest: DatasetManifest = read_dataset(result.outputs["dataset"].uri)
    return DatasetLine(
        sha256=manifest.sha256(),
        version=manifest.version,
        clips=manifest.clips,
        seconds=manifest.seconds,
        splits=manifest.splits,
        quarantined=manifest.quarantined,
    )


def _tuning(result: StageResult | None) -> TunedWeights | None:
    if result is None or "weights" not in result.outputs:
        return None
    return TunedWeights.model_validate(store.read_json(result.outputs["weights"].uri))


def _scores(result: StageResult | None) -> ScoreSheet:
    if result is None or "scores" not in result.outputs:
        return ScoreSheet()
    return read_scores(result.outputs["scores"].uri)
