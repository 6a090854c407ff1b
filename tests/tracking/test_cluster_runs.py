"""How a run begins and ends on a cluster: one parent run in MLflow, whatever is tried again."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow import MlflowClient

import components.launch
from components.run import begin_parent, end_run
from sonarc.contracts.presets import load
from sonarc.contracts.result import TrackingRef
from sonarc.tracking.runs import EXPERIMENT, OUTCOME_TAG, stage_run

RUN = "0d6f3c1e-run"


@pytest.fixture
def server(tracking_uri: str) -> str:
    """A tracking database, which stands for a server: neither is a run that somebody opened."""
    return tracking_uri


@pytest.fixture(autouse=True)
def _outside_a_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_RUN_ID", "KFP_RUN_ID"):
        monkeypatch.delenv(name, raising=False)


def begun(tmp_path: Path, tracking: str, run: str) -> str:
    config = load("ci").model_dump_json()
    return begin_parent(config=config, store_uri=tmp_path.as_uri(), tracking=tracking, run=run)


def ended(tmp_path: Path, tracking: str, run: str, state: str, message: str = "") -> None:
    end_run(store_uri=tmp_path.as_uri(), tracking=tracking, ray_address="", run=run, state=state, message=message)


def test_without_tracking_and_with_a_run_that_is_open_nothing_is_opened(tmp_path: Path) -> None:
    opened = TrackingRef(uri="http://127.0.0.1:9", experiment="x", parent_run_id="y").model_dump_json()
    for tracking in ("", opened):
        assert begun(tmp_path, tracking, RUN) == tracking
        ended(tmp_path, tracking, RUN, "SUCCEEDED")  # whoever opened it closes it


def test_a_second_try_finds_the_run_of_the_first_and_the_end_closes_it(tmp_path: Path, server: str) -> None:
    first = TrackingRef.model_validate_json(begun(tmp_path, server, "again"))
    second = TrackingRef.model_validate_json(begun(tmp_path, server, "again"))
    assert second == first
    assert first.experiment == EXPERIMENT and first.outbox.startswith(tmp_path.as_uri())
    for _ in range(2):
        ended(tmp_path, server, "again", "SUCCEEDED")
    run = MlflowClient(server).get_run(first.parent_run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["arc.steps"] == "6"
    assert run.data.tags["sonarc.pipeline_run"] == "again"


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        (["ingest"], None),
        (["encode", "gate"], "refused"),
        (["encode", "gate", "promote"], "succeeded"),
    ],
)
def test_how_it_ended_is_said_as_on_a_laptop(tmp_path: Path, server: str, stages: list[str], said: str | None) -> None:
    ref = TrackingRef.model_validate_json(begun(tmp_path, server, "told"))
    for stage in stages:
        with stage_run(ref, stage, "key"):
            pass
    ended(tmp_path, server, "told", "SUCCEEDED")
    assert MlflowClient(server).get_run(ref.parent_run_id).data.tags.get(OUTCOME_TAG) == said


@pytest.mark.parametrize(("state", "status"), [("FAILED", "FAILED"), ("CANCELLED", "KILLED")])
def test_a_failure_is_told_with_kubeflows_words(tmp_path: Path, server: str, state: str, status: str) -> None:
    ref = TrackingRef.model_validate_json(begun(tmp_path, server, state))
    ended(tmp_path, server, state, state, "pretrain: the pod was evicted")
    run = MlflowClient(server).get_run(ref.parent_run_id)
    assert run.info.status == status
    assert run.data.tags["sonarc.message"] == "pretrain: the pod was evicted"
    ended(tmp_path, server, "never begun", "FAILED")  # begin itself failed: there is nothing to close


def test_a_run_that_kubeflow_made_is_used_and_left_open(
    tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = MlflowClient(server)
    experiment = client.create_experiment("kubeflow's own")
    parent = client.create_run(experiment)
    task = client.create_run(experiment, tags={"mlflow.parentRunId": parent.info.run_id})
    monkeypatch.setenv("MLFLOW_RUN_ID", task.info.run_id)
    ref = TrackingRef.model_validate_json(begun(tmp_path, server, "injected"))
    assert (ref.parent_run_id, ref.experiment) == (parent.info.run_id, "kubeflow's own")
    ended(tmp_path, server, "injected", "SUCCEEDED")
    assert client.get_run(parent.info.run_id).info.status == "RUNNING"


def test_in_a_pod_what_is_left_on_ray_is_ended_and_the_parent_closed_even_if_that_fails(
    tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def gone(run_name: str, *, ray_address: str = "") -> list[str]:
        asked.append(run_name)
        raise ConnectionError("no Ray there")

    monkeypatch.setattr(components.launch, "cleanup", gone)
    ref = TrackingRef.model_validate_json(begun(tmp_path, server, "pod"))
    ended(tmp_path, server, "pod elsewhere", "SUCCEEDED")
    assert asked == []
    monkeypatch.setenv("KFP_RUN_ID", "pod")
    with pytest.raises(ConnectionError):
        ended(tmp_path, server, "pod", "SUCCEEDED")
    assert asked == ["pod"]
    assert MlflowClient(server).get_run(ref.parent_run_id).info.status == "FINISHED"
