"""Runs, nested runs, cache hits, and a server that is away."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sonarc.contracts import store
from sonarc.contracts.errors import DataError, TrackingError
from sonarc.contracts.result import StageResult, TrackingRef
from sonarc.tracking import mlflow_client, runs
from sonarc.tracking.messages import Start
from sonarc.tracking.outbox import Outbox, replay

KEY = "0" * 32


@pytest.fixture
def parent(tracking_uri: str) -> TrackingRef:
    return runs.open_parent(tracking_uri, "tests", "a run", {"arc": {"steps": 3, "betas": [0, 0.95]}}, {"who": "me"})


def _run(ref: TrackingRef, run_id: str):  # type: ignore[no-untyped-def]
    return mlflow_client.client(ref.uri).get_run(run_id)


def test_parent_has_parameters_tags_and_a_status(parent: TrackingRef) -> None:
    runs.close_parent(parent, "FINISHED")
    run = _run(parent, parent.parent_run_id)
    assert run.data.params == {"arc.steps": "3", "arc.betas": "[0, 0.95]"}
    assert run.data.tags["who"] == "me"
    assert (run.info.run_name, run.info.status) == ("a run", "FINISHED")


def test_stage_nests_below_parent_and_trial_below_stage(parent: TrackingRef, tmp_path: Path) -> None:
    (tmp_path / "curve.txt").write_text("x")
    with runs.stage_run(parent, "tune", KEY) as run:
        run.log_params({"trials": 1})
        for step in range(700):  # more than one batch
            run.log_metrics({"loss": 1 / (step + 1)}, step)
        run.log_dict({"best": 1}, "tables/weights.json")
        run.log_file(tmp_path / "curve.txt", "curves")
        with run.child("trial-0") as trial:
            trial.log_metrics({"fd": 2.0})
    assert run.id is not None and trial.id is not None
    stage, nested = _run(parent, run.id), _run(parent, trial.id)
    assert stage.data.tags["mlflow.parentRunId"] == parent.parent_run_id
    assert nested.data.tags["mlflow.parentRunId"] == run.id
    assert (stage.data.tags["sonarc.key"], stage.info.status) == (KEY, "FINISHED")
    client = mlflow_client.client(parent.uri)
    history = client.get_metric_history(run.id, "loss")
    assert sorted(point.step for point in history) == list(range(700))
    assert {file.path for file in client.list_artifacts(run.id)} == {"tables", "curves"}
    written = client.download_artifacts(run.id, "tables/weights.json", str(tmp_path))
    assert json.loads(Path(written).read_text()) == {"best": 1}


def test_infinite_metric_is_not_stored_as_a_number(parent: TrackingRef) -> None:
    with runs.stage_run(parent, "pretrain", KEY) as run:
        run.log_metrics({"loss": math.inf})
    assert run.id is not None
    assert math.isnan(_run(parent, run.id).data.metrics["loss"])


def test_failed_stage_says_why(parent: TrackingRef) -> None:
    with pytest.raises(DataError), runs.stage_run(parent, "encode", KEY) as run:
        raise DataError("The shard x is damaged.", "Make it again.")
    assert run.id is not None
    failed = _run(parent, run.id)
    assert failed.info.status == "FAILED"
    assert failed.data.tags["sonarc.message"] == "The shard x is damaged. Make it again."


def test_interrupted_stage_is_killed(parent: TrackingRef) -> None:
    with pytest.raises(KeyboardInterrupt), runs.stage_run(parent, "encode", KEY) as run:
        raise KeyboardInterrupt
    assert run.id is not None and _run(parent, run.id).info.status == "KILLED"


def test_cache_hit_is_a_nested_run_that_names_the_original(parent: TrackingRef) -> None:
    result = StageResult(stage="ingest", key=KEY, status="succeeded", metrics={"clips": 5.0}, mlflow_run_id="abc")
    run_id = runs.record_cached(parent, result)
    assert run_id is not None
    run = _run(parent, run_id)
    assert run.data.tags["cached_from"] == "abc"
    assert run.data.tags["mlflow.parentRunId"] == parent.parent_run_id
    assert run.data.metrics == {"clips": 5.0}


def test_nothing_is_tracked_without_a_reference(tmp_path: Path) -> None:
    with runs.stage_run(None, "ingest", KEY) as run, run.child("t") as trial:
        run.log_metrics({"a": 1.0})
        run.log_file(tmp_path / "absent")
        assert (run.id, trial.id) == (None, None)
    assert runs.record_cached(None, StageResult(stage="ingest", key=KEY, status="succeeded")) is None
    runs.close_parent(None, "FINISHED")


def test_injected_run_becomes_the_parent(tracking_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client = mlflow_client.client(tracking_uri)
    given = client.create_run(client.create_experiment("theirs")).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", given)
    ref = runs.open_parent(tracking_uri, "ours", "named", {}, {})
    assert (ref.parent_run_id, ref.experiment) == (given, "theirs")


def test_credentials_in_the_uri_are_refused() -> None:
    with pytest.raises(TrackingError, match="credentials"):
        runs.open_parent("http://me:secret@host:5000", "tests", "run", {}, {})


def test_dead_server_delays_by_seconds(parent: TrackingRef, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    dead = TrackingRef(uri="http://127.0.0.1:9", experiment="tests", parent_run_id=parent.parent_run_id)
    begun = time.monotonic()
    with pytest.raises(TrackingError, match=r"127\.0\.0\.1:9"):
        runs.open_parent(dead.uri, "tests", "run", {}, {})
    with runs.stage_run(dead, "ingest", KEY) as run:  # the work itself goes on
        assert run.id is None
    assert time.monotonic() - begun < 10


def test_messages_wait_while_the_server_is_away(parent: TrackingRef, monkeypatch: pytest.MonkeyPatch) -> None:
    away = True
    with runs.stage_run(parent, "pretrain", KEY) as run:
        assert isinstance(run, runs.MlflowRun)
        reach = run._outbox.client.log_batch

        def log_batch(*args: object, **kwargs: object) -> None:
            if away:
                raise ConnectionError("away")
            reach(*args, **kwargs)  # type: ignore[arg-type]

        monkeypatch.setattr(run._outbox.client, "log_batch", log_batch)
        run.log_params({"lr": 0.1})
        run.log_metrics({"loss": 1.0}, 1)
        away = False
    assert run.id is not None
    assert _run(parent, run.id).data.params == {"lr": "0.1"}
    assert _run(parent, run.id).data.metrics["loss"] == 1.0


def test_what_a_dead_server_was_not_told_is_kept_and_told_later(
    tracking_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = (tmp_path / "store" / "outbox").as_uri()
    parent = runs.open_parent(tracking_uri, "tests", "a run", {}, {}, outbox)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    dead = parent.model_copy(update={"uri": "http://127.0.0.1:9"})
    (tmp_path / "clip.wav").write_bytes(b"RIFF\x00")
    begun = time.time()
    with runs.stage_run(dead, "tune", KEY) as run:
        run.log_params({"lr": 0.1})
        run.log_metrics({"loss": math.nan}, 3)
        run.log_file(tmp_path / "clip.wav", "samples")
        run.log_data("dataset", "d" * 64, "file:///d", {"clips": 5}, "training")
        (tmp_path / "clip.wav").unlink()
        with run.child("trial-0") as trial:
            trial.log_metrics({"fd": 2.0})
        assert run.id is None and trial.id is None
    runs.parent_run(dead).log_tags({"said": "late"})
    runs.close_parent(dead, "FINISHED")
    assert len(store.list_files(outbox)) == 4
    store.write_bytes(store.join(outbox, "0-damaged.json"), b"{}")

    with runs.stage_run(parent, "posttrain", KEY):  # the server is back: the next stage tells it
        pass
    assert list(store.list_files(outbox)) == ["0-damaged.json"]
    client = mlflow_client.client(tracking_uri)
    experiment = client.get_run(parent.parent_run_id).info.experiment_id
    found = {r.info.run_name: r for r in client.search_runs([experiment])}
    tune, nested = found["tune"], found["trial-0"]
    assert (tune.info.status, tune.data.params) == ("FINISHED", {"lr": "0.1"})
    assert tune.info.start_time / 1000 == pytest.approx(begun, abs=1)
    assert math.isnan(tune.data.metrics["loss"]) and nested.data.metrics["fd"] == 2.0
    assert nested.data.tags["mlflow.parentRunId"] == tune.info.run_id
    assert client.list_artifacts(tune.info.run_id, "samples")[0].file_size == 5
    (read,) = tune.inputs.dataset_inputs
    assert (read.dataset.name, read.dataset.source, read.tags[0].value) == ("dataset", "file:///d", "training")
    told = _run(parent, parent.parent_run_id)
    assert (told.info.status, told.data.tags["said"]) == ("FINISHED", "late")
    assert replay(parent) == (0, 1), "nothing is told twice"


def test_a_run_that_mlflow_heard_of_is_not_created_again(tracking_uri: str, tmp_path: Path) -> None:
    parent = runs.open_parent(tracking_uri, "tests", "a run", {}, {}, (tmp_path / "outbox").as_uri())
    outbox = Outbox(parent, Start(parent=parent.parent_run_id, name="ingest", tags={}, at=1_000))
    outbox.deliver()
    forgotten = outbox.journal().model_copy(update={"run_id": None})  # its answer was lost
    again = Outbox.of(parent, forgotten)
    again.deliver()
    assert again.run_id == outbox.run_id


def test_processes_write_to_one_database_together(parent: TrackingRef) -> None:
    code = (
        "import sys; from sonarc.contracts.result import TrackingRef; from sonarc.tracking import runs\n"
        "ref = TrackingRef.model_validate_json(sys.argv[1])\n"
        "for i in range(5):\n"
        "    with runs.stage_run(ref, 'ingest', 'k') as run: run.log_metrics({'x': 1.0})\n"
    )
    command = [sys.executable, "-c", code, parent.model_dump_json()]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in both:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
    client = mlflow_client.client(parent.uri)
    experiment = client.get_run(parent.parent_run_id).info.experiment_id
    nested = [run for run in client.search_runs([experiment]) if run.data.metrics.get("x") == 1.0]
    assert len(nested) == 10


def test_importing_tracking_does_not_import_mlflow() -> None:
    code = "import sys, sonarc.tracking.runs, sonarc.tracking.registry, sonarc.tracking.stages\n"
    code += "assert not {'mlflow', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
