"""Target `pipeline`: how long a first run and a repeated one take, stage by stage, from their own summaries."""

from __future__ import annotations

from pathlib import Path

from sonarc.bench.sheet import BenchRow, BenchSheet, measured
from sonarc.contracts.errors import DataError
from sonarc.report.summary import RunSummary, StageLine, read_summary

FIRST_WANTED_S = 1_050.0
"""A first run, install not counted: 20 minutes less 150 s of install, seconds."""
REPEAT_WANTED_S = 120.0
"""A run in which nothing changed, seconds."""
STAGE_WANTED_S = {
    "encode": 40.0,
    "pretrain": 330.0,
    "tune": 90.0,
    "posttrain": 170.0,
    "evaluate": 150.0,
}
"""The laptop budget of the stages that compute, seconds."""

TRAINED = tuple(STAGE_WANTED_S)
"""A run counts as a first one when it did all of these itself, as a repeated one when it did none."""


def measure(runs: Path) -> BenchSheet:
    """The newest first run and the newest repeated run of the laptop preset below `runs`.

    Raises:
        DataError: there is no such first run.
    """
    summaries = sorted(_finished(runs), key=lambda summary: summary.started, reverse=True)
    first = next((s for s in summaries if not any(line.cached for line in _trained(s))), None)
    if first is None:
        raise DataError(
            f"No run in {runs} computed every stage of the laptop preset itself.", "Run `make run` with an empty cache."
        )
    repeat = next((s for s in summaries if all(line.cached for line in _trained(s))), None)
    rows = [measured("first_run", [first.total_seconds], "s", "lower", wanted=FIRST_WANTED_S)]
    if repeat is not None:
        rows.append(measured("repeated_run", [repeat.total_seconds], "s", "lower", wanted=REPEAT_WANTED_S))
    rows += _stages(first)
    return BenchSheet(
        name="pipeline",
        machine=first.machine,
        versions=first.versions,
        command="make run && make run && make bench ARGS=pipeline",
        rows=tuple(rows),
    )


def _finished(runs: Path) -> list[RunSummary]:
    """Successful runs of the laptop preset; `latest` is a link to one of them."""
    folders = [folder for folder in runs.glob("*") if not folder.is_symlink() and (folder / "summary.json").is_file()]
    found = [read_summary(str(folder / "summary.json")) for folder in folders]
    return [s for s in found if s.preset == "laptop" and s.status == "succeeded"]


def _trained(summary: RunSummary) -> list[StageLine]:
    return [line for line in summary.stages if line.name in TRAINED]


def _stages(first: RunSummary) -> list[BenchRow]:
    return [
        measured(f"stage.{line.name}", [line.seconds], "s", "lower", wanted=STAGE_WANTED_S.get(line.name))
        for line in first.stages
        if line.status == "succeeded"
    ]
