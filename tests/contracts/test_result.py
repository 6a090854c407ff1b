"""Stage keys, the cache they name, and result.json."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from sonarc.contracts import result as module
from sonarc.contracts import store
from sonarc.contracts.errors import DataError, GateRefused, StageError
from sonarc.contracts.hashing import canonical_json, sha256_code
from sonarc.contracts.presets import load
from sonarc.contracts.result import (
    Artifact,
    StageRequest,
    StageResult,
    TrackingRef,
    cached_result,
    failure_of,
    read_result,
    stage_folder,
    stage_key,
    write_result,
)
from sonarc.contracts.stage import Outcome, StageContext, execute
from sonarc.contracts.stages import STAGES


class Nowhere:
    """A run that records nothing."""

    id = None


def _upstream(folder: Path, sha256: str = "d") -> str:
    """A finished `ingest` in `folder`; returns its URI."""
    uri = folder.as_uri()
    outputs = {"dataset": Artifact(uri=f"{uri}/dataset", sha256=sha256)}
    write_result(uri, StageResult(stage="ingest", key="k", status="succeeded", outputs=outputs))
    return uri


def _request(folder: Path, *overrides: str, sha256: str = "d", **more: object) -> StageRequest:
    inputs = {"ingest": _upstream(folder, sha256)}
    settings = {"stage": "encode", "store": (folder / "store").as_uri(), "inputs": inputs} | more
    return StageRequest.model_validate(settings | {"config": load("ci", overrides)})


def test_places_runs_and_tracking_never_enter_a_key(tmp_path: Path) -> None:
    here = _request(tmp_path / "here")
    tracking = TrackingRef(uri="http://mlflow", experiment="e", parent_run_id="run-7")
    there = _request(tmp_path / "there", tracking=tracking, progress="progress.jsonl")
    assert here.key() == there.key()
    assert len(here.key()) == 32


def test_only_the_stages_own_settings_enter_its_key(tmp_path: Path) -> None:
    key = _request(tmp_path).key()
    assert _request(tmp_path, "arc.steps=999", "compute.threads=7", "serve.port=9000").key() == key
    assert _request(tmp_path, "codec.batch=3").key() != key


@pytest.mark.parametrize("stage", STAGES)
def test_how_much_hardware_there_is_never_enters_a_key(stage: str) -> None:
    few, many = (load("ci", [f"compute.workers={n}", f"compute.threads={n}"]) for n in (1, 2))
    assert stage_key(stage, few, {}) == stage_key(stage, many, {})


def test_inputs_and_the_outside_enter_by_their_hash(tmp_path: Path) -> None:
    key = _request(tmp_path).key()
    assert _request(tmp_path, sha256="other").key() != key
    assert _request(tmp_path, fingerprint="f").key() != key


def test_the_code_of_a_stage_enters_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    key = stage_key("encode", load("ci"), {})
    monkeypatch.setattr(module, "sha256_code", lambda packages: "changed")
    assert stage_key("encode", load("ci"), {}) != key


def test_every_stage_names_code_settings_and_inputs_that_exist() -> None:
    root = Path(module.__file__).parents[2]
    names = list(STAGES)
    for name, spec in STAGES.items():
        assert all(names.index(upstream) < names.index(name) for upstream in spec.inputs)
        for dotted in spec.code:
            place = root.joinpath(*dotted.split("."))
            assert place.is_dir() or place.with_suffix(".py").is_file(), f"{name}: {dotted} is no code"
        assert len(sha256_code(spec.code)) == 64
        assert stage_key(name, load("ci"), {}) != stage_key(name, load("ci"), {}, "f")


def test_a_result_survives_the_disk_and_is_the_cache(tmp_path: Path) -> None:
    folder = stage_folder(tmp_path.as_uri(), "encode", "k")
    assert folder == (tmp_path / "stages" / "encode" / "k").as_uri()
    assert cached_result(folder) is None
    done = StageResult(
        stage="encode",
        key="k",
        status="succeeded",
        outputs={"latents": Artifact(uri="file:///x", sha256="h")},
        metrics={"loss": 0.5},
        counts={"clips": 3},
        seconds=1.5,
    )
    write_result(folder, done)
    assert read_result(folder) == done
    assert cached_result(folder) == done
    write_result(folder, done.model_copy(update={"status": "failed"}))
    assert cached_result(folder) is None


def test_a_result_of_another_schema_is_refused(tmp_path: Path) -> None:
    _upstream(tmp_path)
    place = tmp_path / "result.json"
    document = json.loads(place.read_text(encoding="utf-8"))
    for change in ({"schema": "sonarc.result/0"}, {"unheard": 1}, {"status": "perhaps"}):
        place.write_text(json.dumps(document | change), encoding="utf-8")
        with pytest.raises(DataError, match="does not follow"):
            read_result(tmp_path.as_uri())


def test_failures_keep_code_message_and_hint() -> None:
    ours = failure_of(GateRefused("no", "try again"))
    assert (ours.code, ours.message, ours.hint) == ("gate", "no", "try again")
    theirs = failure_of(ZeroDivisionError("by zero"))
    assert (theirs.code, theirs.message) == ("internal", "ZeroDivisionError: by zero")


def test_work_that_succeeds_leaves_its_result_last(tmp_path: Path) -> None:
    request = _request(tmp_path)
    scratch: list[Path] = []

    def work(context: StageContext) -> Outcome:
        assert context.input("ingest", "dataset").sha256 == "d"
        assert cached_result(context.folder) is None
        scratch.append(context.scratch)
        uri = store.join(context.folder, "out")
        return Outcome({"latents": Artifact(uri=uri, sha256=store.write_bytes(uri, b"x"))}, counts={"clips": 1})

    made = execute(request, work, Nowhere())  # type: ignore[arg-type]
    assert cached_result(request.folder()) == made
    assert made.inputs["ingest.dataset"].sha256 == "d"
    assert not scratch[0].exists()


def test_work_that_fails_is_recorded_and_is_no_cache(tmp_path: Path) -> None:
    request = _request(tmp_path)

    def work(context: StageContext) -> Outcome:
        context.input("ingest", "unheard")
        raise AssertionError

    with pytest.raises(StageError, match="unheard"):
        execute(request, work, Nowhere())  # type: ignore[arg-type]
    assert cached_result(request.folder()) is None
    error = read_result(request.folder()).error
    assert error is not None and error.code == "stage"


def test_a_full_disk_is_reported_as_itself_even_where_the_record_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sonarc.contracts.errors import StoreError

    request = _request(tmp_path)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def work(context: StageContext) -> Outcome:
        monkeypatch.setattr("sonarc.contracts.store.os.fsync", full)
        store.write_bytes(store.join(context.folder, "out"), b"x")
        raise AssertionError

    with pytest.raises(StoreError, match="disk is full"):
        execute(request, work, Nowhere())  # type: ignore[arg-type]
    assert cached_result(request.folder()) is None


def test_canonical_json_has_one_spelling() -> None:
    assert canonical_json({"b": 1, "a": [1.0, "ü"]}) == '{"a":[1.0,"ü"],"b":1}'
    with pytest.raises(ValueError, match="JSON"):
        canonical_json(float("inf"))
