"""A month of weekly retrains by the real pipeline: data that grow, a quiet week, one of noise, and two missed fires."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import soundfile
from scheduling import Clock, keeper_of, opened

from pipelines.places import Places
from pipelines.schedules.embedded import EmbeddedSchedules, ScheduledRun
from pipelines.schedules.model import Schedule
from pipelines.schedules.process import RunProcess
from serving import control
from sonarc.contracts.package import read_package
from sonarc.demo.source import write_demo
from sonarc.report.summary import RunSummary, read_summary
from sonarc.tracking.registry import Registry
from sonarc.tracking.runs import OUTCOME_TAG

pytestmark = [pytest.mark.slow, pytest.mark.timeout(14_400)]

SAMPLES = 65_536
# The worst that a week of chance does to a model of this size is far from what a week of noise does.
RULES = [
    {"metric": "silent_fraction", "side": "below", "bound": 0.9},
    {"metric": "fd_yamnet", "versus": "champion", "side": "below", "bound": 0.0},
]


def grow(source: Path, clips: int) -> None:
    """The demo's first so many clips; what is there stays as it is."""
    noise = _rows(source / "captions.jsonl", "audio/noise/")
    write_demo(source, clips=clips, samples=SAMPLES, recorded_limit=24, damaged=0)
    _append(source / "captions.jsonl", noise)


def spoil(source: Path, clips: int) -> None:
    """White noise under the captions of music."""
    captions = source / "captions.jsonl"
    music, draw = _rows(captions, "audio/"), np.random.default_rng(0)
    (source / "audio" / "noise").mkdir()
    rows = []
    for number in range(clips):
        path = f"audio/noise/{number:03d}.flac"
        soundfile.write(source / path, 0.1 * draw.standard_normal((SAMPLES, 2)), 44_100)
        rows.append(music[number % len(music)] | {"path": path, "group": f"noise {number}"})
    _append(captions, rows)


def _rows(captions: Path, below: str) -> list[dict[str, object]]:
    lines = captions.read_text(encoding="utf-8").splitlines() if captions.exists() else []
    return [row for row in map(json.loads, lines) if row["path"].startswith(below)]


def _append(captions: Path, rows: list[dict[str, object]]) -> None:
    with captions.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def test_a_month_of_real_retrains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, home = tmp_path / "source", tmp_path / "runs"
    places = Places(home, (tmp_path / "store").as_uri(), f"sqlite:///{tmp_path / 'mlflow' / 'mlflow.db'}")
    monkeypatch.setenv("SONARC_STORE", places.store)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", places.tracking)
    clock, seen = Clock(datetime(2026, 3, 21, 12, tzinfo=UTC)), dict[str, RunSummary]()

    def settings(name: str) -> Schedule:
        sources = [{"name": "mine", "uri": str(source)}]
        given = {"data.sources": sources, "data.name": name, "gate.rules": RULES}
        plain = (
            "data.near_duplicate=1",
            "data.train_fraction=0.7",
            "pretrain.steps=200",
            "pretrain.checkpoint_every=100",
            "tune.trials=1",
        )
        overrides = (*plain, *(f"{key}={json.dumps(value)}" for key, value in given.items()))
        return Schedule(name="weekly", cron="0 3 * * SUN", timezone="Europe/Berlin", preset="ci", overrides=overrides)

    def start(schedule: Schedule, run: ScheduledRun) -> RunProcess:
        return RunProcess(schedule, run, home)

    schedules = EmbeddedSchedules(opened(tmp_path), clock)
    schedules.set(settings("mine"))
    keeper = keeper_of(opened(tmp_path), start, clock)

    def week(day: str) -> None:
        """Let a day come, and the run that is due on it end."""
        clock.now = datetime.fromisoformat(f"2026-{day}T03:00:00+00:00")
        keeper.tick()
        while schedules.unfinished():
            time.sleep(1)
            keeper.tick()
        (run, *_) = schedules.runs("weekly")
        seen[day] = read_summary(str((home / "latest" / "summary.json").resolve()))
        print(day, run.outcome, f"{seen[day].total_seconds:.0f} s", run.detail, flush=True)

    try:
        grow(source, 64)
        week("03-22")
        grow(source, 80)
        week("03-29")
        week("04-05")
        spoil(source, 200)
        week("04-12")
        # The files go, the clips stay in their dataset: the next one begins afresh. Then two Sundays pass unseen.
        (source / "captions.jsonl").unlink()
        grow(source, 96)
        clock.now = datetime(2026, 4, 13, tzinfo=UTC)
        schedules.set(settings("mine-2"))
        week("04-27")
        keeper.tick()
    finally:
        keeper.close()
        control.stop(home)

    runs = list(reversed(schedules.runs("weekly")))
    assert [(f"{run.due:%m-%d %H:%M}", run.outcome) for run in runs] == [
        ("03-22 02:00", "succeeded"),
        ("03-29 01:00", "succeeded"),
        ("04-05 01:00", "nothing_new"),
        ("04-12 01:00", "refused"),
        ("04-19 01:00", "succeeded"),
    ]
    _history_is_right(places, seen)


def _history_is_right(places: Places, seen: dict[str, RunSummary]) -> None:
    registry = Registry(places.tracking, places.store)
    moves = [(move.from_version, move.to_version) for move in registry.audit("sonarc-ci")]
    assert moves == [(None, "1"), ("1", "2"), ("2", "3")]
    champion = registry.resolve("sonarc-ci", "champion")
    assert champion is not None and champion.version == "3"
    kept = {one.registered.version: read_package(one.registered.package_uri) for one in registry.versions("sonarc-ci")}
    clips = {day: summary.dataset.clips for day, summary in seen.items() if summary.dataset}
    assert clips["03-22"] < clips["03-29"] == clips["04-05"] < clips["04-12"] > clips["04-27"]
    told = [kept[version].lineage.dataset_sha256 for version in "123"]
    assert told == [seen[day].dataset.sha256 for day in ("03-22", "03-29", "04-27")]  # type: ignore[union-attr]

    warm = {day: _counts(summary, "pretrain").get("warm_start", 0) for day, summary in seen.items()}
    assert warm == {"03-22": 0, "03-29": 1, "04-05": 0, "04-12": 1, "04-27": 1}
    assert _counts(seen["03-29"], "ingest")["new_clips"] == clips["03-29"] - clips["03-22"], "only what is new"
    quiet = seen["04-05"]
    assert {line.name for line in quiet.stages if line.status == "succeeded"} == {"sources", "ingest"}

    from mlflow import MlflowClient

    client = MlflowClient(places.tracking)
    (experiment,) = client.search_experiments(filter_string="name = 'sonarc'")
    parents = client.search_runs(
        [experiment.experiment_id], "tags.`sonarc.schedule` = 'weekly'", order_by=["attributes.start_time ASC"]
    )
    assert [run.data.tags[OUTCOME_TAG] for run in parents] == [
        "succeeded", "succeeded", "nothing_new", "refused", "succeeded",
    ]  # fmt: skip
    assert [run.info.status for run in parents][2:4] == ["FINISHED", "FAILED"]


def _counts(summary: RunSummary, stage: str) -> dict[str, int]:
    line = summary.stage(stage)
    return line.counts if line else {}
