"""Every component's way to run a stage: the cache first, Ray only when needed, errors in the stage's own words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from components.launch import StageFailed, launch
from components.launch import stage as launching
from sonarc.contracts import store
from sonarc.contracts.errors import SonarcError, StageError
from sonarc.contracts.presets import load
from sonarc.contracts.progress import read_progress
from sonarc.contracts.result import Artifact, StageRequest, StageResult, write_result
from sonarc.contracts.scores import Score, ScoreSheet, write_scores

NOWHERE = "http://127.0.0.1:9"  # the discard port: nothing answers


def _finished(store_uri: str, stage: str, config, inputs: dict[str, str], outputs: dict[str, Artifact]) -> str:
    request = StageRequest(stage=stage, store=store_uri, config=config, inputs=inputs)
    folder = request.folder()
    write_result(folder, StageResult(stage=stage, key=request.key(), status="succeeded", outputs=outputs))
    return folder


def _launch(stage: str, config, root: Path, inputs: dict[str, str]):
    return launch(
        stage,
        config=config.model_dump_json(),
        store_uri=root.as_uri(),
        tracking="",
        ray_address=NOWHERE,
        progress=str(root / "run" / "progress.jsonl"),
        inputs=inputs,
    )


def test_a_finished_stage_is_taken_from_the_cache_without_ray(tmp_path: Path) -> None:
    config = load("ci")
    sources = _finished(tmp_path.as_uri(), "sources", config, {}, {"sources": Artifact(uri="file:///x", sha256="a")})
    done = _finished(
        tmp_path.as_uri(), "ingest", config, {"sources": sources}, {"dataset": Artifact(uri="file:///d", sha256="b")}
    )
    record = _launch("ingest", config, tmp_path, {"sources": sources})
    assert record.cached
    assert record.folder == done
    assert record.result.outputs["dataset"].sha256 == "b"
    events, _ = read_progress(tmp_path / "run" / "progress.jsonl")
    assert [(event.stage, event.message) for event in events] == [("ingest", "cached")]
    kept = json.loads((tmp_path / "run" / "stages" / "ingest.json").read_text())
    assert kept["cached"] is True


def test_another_setting_of_the_stage_misses_the_cache_and_asks_ray(tmp_path: Path) -> None:
    config = load("ci")
    sources = _finished(tmp_path.as_uri(), "sources", config, {}, {"sources": Artifact(uri="file:///x", sha256="a")})
    _finished(tmp_path.as_uri(), "ingest", config, {"sources": sources}, {})
    with pytest.raises((ConnectionError, SonarcError)):
        _launch("ingest", load("ci", ["data.loudness_lufs=-23"]), tmp_path, {"sources": sources})


def _evaluated(root: Path, config, value: float) -> str:
    score = Score(
        metric="silent_fraction", model="generator", steps=4, value=value, n=16, better="lower", reference_sha256="r"
    )
    where = store.join(root.as_uri(), f"scores-{value}.json")
    sha256 = write_scores(where, ScoreSheet(scores=(score,)))
    folder = store.join(root.as_uri(), "stages", "evaluate", f"by-hand-{value}")
    outputs = {"scores": Artifact(uri=where, sha256=sha256)}
    write_result(folder, StageResult(stage="evaluate", key="by-hand", status="succeeded", outputs=outputs))
    return folder


@pytest.mark.parametrize(("value", "passed"), [(0.0, 1.0), (0.95, 0.0)])
def test_the_gate_runs_in_process_and_its_verdict_is_an_outcome(tmp_path: Path, value: float, passed: float) -> None:
    config = load("ci")
    record = _launch("gate", config, tmp_path, {"evaluate": _evaluated(tmp_path, config, value)})
    assert not record.cached
    assert record.result.metrics["passed"] == passed
    assert store.exists(record.result.outputs["verdict"].uri)


def test_a_stage_that_cannot_read_its_input_leaves_the_reason(tmp_path: Path) -> None:
    config = load("ci")
    with pytest.raises(SonarcError) as caught:
        _launch("gate", config, tmp_path, {"evaluate": store.join(tmp_path.as_uri(), "missing")})
    failed = StageFailed.model_validate_json((tmp_path / "run" / "error.json").read_bytes())
    assert failed.stage == "gate"
    assert failed.failure.message == caught.value.message
    assert failed.exit_code == caught.value.exit_code


def test_a_fault_of_our_own_leaves_its_reason_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(launching, "with_outside", broken)
    with pytest.raises(ZeroDivisionError):
        _launch("gate", load("ci"), tmp_path, {})
    failed = StageFailed.model_validate_json((tmp_path / "run" / "error.json").read_bytes())
    assert (failed.stage, failed.failure.code, failed.exit_code) == ("gate", "internal", 1)
    assert "division by zero" in failed.failure.message


def test_a_missing_output_of_an_upstream_stage_is_named(tmp_path: Path) -> None:
    config = load("ci")
    folder = store.join(tmp_path.as_uri(), "stages", "evaluate", "empty")
    write_result(folder, StageResult(stage="evaluate", key="empty", status="succeeded"))
    with pytest.raises(StageError, match="'scores' of 'evaluate'"):
        _launch("gate", config, tmp_path, {"evaluate": folder})
