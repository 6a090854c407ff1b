from __future__ import annotations

import json
from pathlib import Path

import pytest
from report_example import example_sheet, example_summary

from sonarc.contracts.dataset import DatasetManifest, Shard, SplitCount, write_dataset
from sonarc.contracts.errors import DataError
from sonarc.contracts.presets import ci
from sonarc.contracts.result import Artifact, StageFailure, StageResult
from sonarc.contracts.scores import write_scores
from sonarc.contracts.stages import STAGES
from sonarc.report.summary import GateLine, RunSummary, read_summary, summarize, write_summary


def _results(folder: Path) -> dict[str, StageResult]:
    """Results of a whole run whose ingest and evaluate left real documents."""
    manifest = DatasetManifest(
        version=1,
        config_sha256="c",
        sample_rate=44_100,
        channels=2,
        samples=65_536,
        clips=3,
        seconds=4.5,
        splits={"train": SplitCount(clips=3, groups=2, seconds=4.5)},
        shards=(Shard(name="train-000000.tar", split="train", clips=3, bytes=10, sha256="s"),),
        index_sha256="i",
        quarantine_sha256="q",
        quarantined={"silent": 2},
    )
    write_dataset(folder.as_uri(), manifest)
    scores = (folder / "scores.json").as_uri()
    digest = write_scores(scores, example_sheet())
    outputs = {
        "ingest": {"dataset": Artifact(uri=folder.as_uri(), sha256=manifest.sha256())},
        "evaluate": {"scores": Artifact(uri=scores, sha256=digest)},
    }
    return {
        name: StageResult(
            stage=name, key="k" * 32, status="succeeded", outputs=outputs.get(name, {}), seconds=10.0, counts={"n": 1}
        )
        for name in STAGES
    }


def _summarize(results: dict[str, StageResult], **more: object) -> RunSummary:
    return summarize(
        run_id="r",
        config=ci(),
        started="2026-01-02T03:04:05+00:00",
        total_seconds=99.0,
        results=results,
        cached={"encode": True},
        wall_seconds={"encode": 0.2},
        **more,  # type: ignore[arg-type]
    )


def test_a_run_is_gathered_from_its_stages(tmp_path: Path) -> None:
    summary = _summarize(_results(tmp_path), gate=GateLine(passed=True), endpoint="http://127.0.0.1:1")
    assert summary.status == "succeeded"
    assert [line.name for line in summary.stages] == list(STAGES)
    encode, pretrain = summary.stage("encode"), summary.stage("pretrain")
    assert encode is not None and pretrain is not None
    assert (encode.cached, encode.seconds, encode.work_seconds) == (True, 0.2, 10.0)
    assert (pretrain.cached, pretrain.seconds) == (False, 10.0)
    assert summary.dataset is not None
    assert (summary.dataset.clips, summary.dataset.quarantined) == (3, {"silent": 2})
    assert summary.scores == example_sheet()
    assert summary.versions["python"]
    assert summary.machine.cores >= 1


def test_it_survives_the_disk(tmp_path: Path) -> None:
    place = str(tmp_path / "summary.json")
    write_summary(place, example_summary())
    assert read_summary(place) == example_summary()


def test_a_refused_candidate_is_not_a_failure(tmp_path: Path) -> None:
    failure = StageFailure(code="gate", message="no")
    assert _summarize(_results(tmp_path), gate=GateLine(passed=False), error=failure).status == "refused"


def test_a_run_that_ended_early_says_which_stages_it_never_reached(tmp_path: Path) -> None:
    results = {name: result for name, result in _results(tmp_path).items() if name in ("sources", "ingest")}
    failed = StageResult(
        stage="encode", key="k", status="failed", error=StageFailure(code="store", message="The disk is full.")
    )
    summary = _summarize({**results, "encode": failed})
    assert summary.status == "failed"
    assert summary.error is not None and summary.error.message == "The disk is full."
    assert [line.name for line in summary.stages if line.status == "skipped"] == list(STAGES)[3:]
    assert summary.scores.scores == ()
    named = _summarize(results, error=StageFailure(code="store", message="full"), failed_stage="encode")
    assert [line.name for line in named.stages if line.status == "failed"] == ["encode"]


def test_a_summary_of_another_schema_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "summary.json"
    document = json.loads(example_summary().model_dump_json(by_alias=True))
    for change in ({"schema": "sonarc.summary/0"}, {"unheard": 1}):
        place.write_text(json.dumps(document | change), encoding="utf-8")
        with pytest.raises(DataError, match="does not follow"):
            read_summary(str(place))


def test_sanity_shows_the_generator_at_the_main_step_count() -> None:
    summary = example_summary()
    rows = dict(summary.sanity())
    assert list(rows) == ["silent_fraction", "side_db", "rolloff_hz"]
    assert {model: score.steps for model, score in rows["side_db"].items()} == {"real": 0, "codec": 0, "generator": 4}
