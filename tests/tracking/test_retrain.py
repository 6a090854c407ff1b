"""Going on from the champion: nothing new is noticed, the base that fits is begun with, and a month of it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from scheduling import Clock, keeper_of, opened
from tiny_promotion import Pipeline

from components.launch import StageFailed, launch
from pipelines.schedules.embedded import EmbeddedSchedules, ScheduledRun
from pipelines.schedules.model import Outcome, Schedule
from sonarc.contracts import store
from sonarc.contracts.config import DiTConfig, RetrainConfig, SonarcConfig
from sonarc.contracts.errors import CheckpointError, NothingNew, SonarcError
from sonarc.contracts.package import read_package
from sonarc.contracts.result import StageRequest, read_result, stage_key
from sonarc.tracking.mlflow_client import client
from sonarc.tracking.registry import Registry
from sonarc.tracking.retrain import base_to_start_from, require_new
from sonarc.tracking.runs import OUTCOME_TAG


def ask(pipeline: Pipeline, stage: str, **retrain: object) -> StageRequest:
    """What a stage of a run like that one would be asked."""
    config = pipeline.config.model_copy(update={"retrain": RetrainConfig(**retrain)})
    inputs = {"encode": pipeline.folders["encode"]} if stage == "pretrain" else {}
    return StageRequest(stage=stage, store=pipeline.store, config=config, inputs=inputs, tracking=pipeline.ref)


def promoted(folder: Path, tracking_uri: str, **made: object) -> Pipeline:
    pipeline = Pipeline(folder, tracking_uri, **made)
    assert pipeline.run("gate").metrics["passed"] == 1.0
    pipeline.run("promote")
    return pipeline


def check_new(pipeline: Pipeline) -> None:
    require_new(ask(pipeline, "ingest", only_new=True), read_result(pipeline.folders["ingest"]).outputs["dataset"])


def test_only_what_the_champion_does_not_know_is_new(tmp_path: Path, tracking_uri: str) -> None:
    first = Pipeline(tmp_path, tracking_uri, index="a")
    check_new(first)  # there is no champion yet
    first.run("gate")
    first.run("promote")
    with pytest.raises(NothingNew, match=r"no clip that version 1 of 'sonarc'"):
        check_new(first)
    with pytest.raises(NothingNew):  # only what was refused has changed
        check_new(Pipeline(tmp_path, tracking_uri, seed=1, index="a", version=2))
    check_new(Pipeline(tmp_path, tracking_uri, seed=2, index="b", version=3))
    package = Registry(tracking_uri, first.store).version("sonarc", "1").package_uri
    store.remove_folder(read_package(package).lineage.dataset_uri)
    check_new(Pipeline(tmp_path, tracking_uri, seed=3, index="a", version=4))  # it can no longer be known


def test_the_champions_base_is_begun_with_where_it_fits(tmp_path: Path, tracking_uri: str) -> None:
    first = Pipeline(tmp_path, tracking_uri)
    for wanted in ("off", "fitting", "required"):
        assert base_to_start_from(ask(first, "pretrain", warm_start=wanted)) == ("", ""), "there is none yet"
    first.run("gate")
    first.run("promote")
    base = Registry(tracking_uri, first.store).version("sonarc-base", "1")
    for wanted in ("fitting", "required"):
        found = base_to_start_from(ask(first, "pretrain", warm_start=wanted))
        assert found == (base.package_uri, base.package_sha256)
    assert base_to_start_from(ask(first, "pretrain", warm_start="off")) == ("", "")

    wider = ask(first, "pretrain", warm_start="fitting")
    wider = wider.model_copy(update={"config": wider.config.model_copy(update={"dit": DiTConfig(width=96, heads=2)})})
    assert base_to_start_from(wider) == ("", "")
    other = Pipeline(tmp_path, tracking_uri, seed=1)  # another codec
    assert base_to_start_from(ask(other, "pretrain", warm_start="fitting")) == ("", "")
    with pytest.raises(CheckpointError, match="trained on latents of"):
        base_to_start_from(ask(other, "pretrain", warm_start="required"))
    store.remove_file(store.join(base.package_uri, "generator.safetensors"))
    with pytest.raises(CheckpointError, match=r"lacks \['generator.safetensors'\]"):
        base_to_start_from(ask(first, "pretrain", warm_start="required"))


def test_going_on_enters_no_key_while_it_is_off(tmp_path: Path) -> None:
    plain, asked = SonarcConfig(), SonarcConfig(retrain=RetrainConfig(only_new=True, warm_start="fitting"))
    for stage in ("ingest", "pretrain", "tune", "posttrain", "evaluate"):
        assert stage_key(stage, plain, {}) == stage_key(stage, asked, {})
        assert stage_key(stage, plain, {}) != stage_key(stage, plain, {}, "a base's hash")


def test_ingest_ends_a_run_with_nothing_new_and_says_so(tmp_path: Path, tracking_uri: str) -> None:
    """A component finds its dataset in the cache, and the run ends there."""
    champion = promoted(tmp_path, tracking_uri)
    assert champion.ref is not None
    done = read_result(champion.folders["ingest"])
    sources = store.join(champion.store, "made", "sources")
    store.write_json(
        store.join(sources, "result.json"),
        done.model_copy(update={"stage": "sources", "outputs": {"sources": done.outputs["dataset"]}}).model_dump(
            mode="json", by_alias=True
        ),
    )
    request = ask(champion, "ingest", only_new=True).model_copy(update={"inputs": {"sources": sources}})
    store.write_json(store.join(request.folder(), "result.json"), done.model_dump(mode="json", by_alias=True))
    with pytest.raises(NothingNew):
        launch(
            "ingest",
            config=request.config.model_dump_json(),
            store_uri=champion.store,
            tracking=champion.ref.model_dump_json(),
            ray_address="http://127.0.0.1:9",
            progress=str(tmp_path / "run" / "progress.jsonl"),
            inputs={"sources": sources},
        )
    failed = StageFailed.model_validate_json((tmp_path / "run" / "error.json").read_bytes())
    assert (failed.stage, failed.failure.code, failed.exit_code) == ("ingest", "nothing_new", 12)
    assert (tmp_path / "run" / "stages" / "ingest.json").exists(), "what ingest found is kept"
    assert client(tracking_uri).get_run(champion.ref.parent_run_id).data.tags[OUTCOME_TAG] == "nothing_new"


class _Over:
    """A run that was over at once."""

    pid, began, log = 1, 0.0, ""

    def __init__(self, outcome: Outcome, said: str = "") -> None:
        self._ended = (outcome, said)

    def ended(self) -> tuple[Outcome, str]:
        return self._ended

    def stop(self) -> None:
        """It is over."""


def test_a_month_of_weekly_retrains(tmp_path: Path, tracking_uri: str) -> None:
    """Real gate, packages, registry and audit; what training and evaluation would have made is made by hand."""
    clock = Clock(datetime(2026, 3, 21, tzinfo=UTC))
    weeks = {  # day → the dataset's index, and the candidate's share of silent clips
        "22 March": ("one", 0.0), "29 March": ("two", 0.005), "05 April": ("two", 0.0),
        "12 April": ("bad", 0.8), "19 April": ("three", 0.0),
    }  # fmt: skip
    began: list[str] = []

    def retrain(schedule: Schedule, run: ScheduledRun) -> _Over:
        began.append(f"{clock.now:%d %B}")
        index, silent = weeks[f"{run.due:%d %B}"]
        # What each run begins with is the champion's; the tiny models share a codec only with themselves.
        week = Pipeline(
            tmp_path, tracking_uri, silent, len(began), index=index, version=len(began), champion=_silent(began)
        )
        try:
            check_new(week)
            if week.run("gate").metrics["passed"] == 0.0:
                return _Over("refused")
            week.run("promote")
        except SonarcError as error:
            return _Over("nothing_new" if isinstance(error, NothingNew) else "failed", error.message)
        return _Over("succeeded")

    def _silent(began: list[str]) -> float | None:
        return 0.0 if len(began) > 1 else None

    database = opened(tmp_path)
    schedules = EmbeddedSchedules(database, clock)
    schedules.set(
        Schedule(name="weekly", cron="0 3 * * SUN", timezone="Europe/Berlin", preset="ci", overrides=("arc.steps=7",))
    )
    keeper = keeper_of(database, retrain, clock)
    for day in range(42):
        if not 27 < day < 37:  # from the 18th to the 26th of April nobody keeps them
            for _ in range(2):
                keeper.tick()
        clock.turn(days=1)
    keeper.close()

    runs = list(reversed(schedules.runs("weekly")))
    assert [(f"{run.due:%d %B %H:%M}", run.outcome) for run in runs][:5] == [
        ("22 March 02:00", "succeeded"),
        ("29 March 01:00", "succeeded"),
        ("05 April 01:00", "nothing_new"),
        ("12 April 01:00", "refused"),
        ("19 April 01:00", "succeeded"),
    ]
    assert began[4] == "27 April", "two Sundays were missed, and made up for once"
    assert began == began[:5], "and the third comes in its time"
    registry = Registry(tracking_uri, (tmp_path / "store").as_uri())
    champion = registry.resolve("sonarc", "champion")
    assert champion is not None and champion.version == "3"
    versions = [read_package(one.registered.package_uri).lineage.dataset_version for one in registry.versions("sonarc")]
    assert versions == [5, 2, 1], "of the quiet and of the bad week nothing is registered"
    moves = [(move.from_version, move.to_version) for move in registry.audit("sonarc")]
    assert moves == [(None, "1"), ("1", "2"), ("2", "3")]
    assert len(registry.versions("sonarc-base")) == 3
