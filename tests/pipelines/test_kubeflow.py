"""Kubeflow's client against a server that checks every request: versions, runs, pages, faults, refusals."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from kfp_cluster import compiled, profile, spec, uploaded
from kfp_schema import FILE
from kfp_server import Fault, Kfp, kfp_server

from pipelines.kubeflow import runs
from pipelines.kubeflow.client import Away, Kubeflow, Missing
from pipelines.kubeflow.parameters import RunParameters
from pipelines.kubeflow.version import Version
from pipelines.kubeflow.versions import deployed, upload, version_names
from sonarc.contracts.errors import ConfigError, PlatformError
from sonarc.contracts.presets import load


@pytest.fixture
def kfp() -> Iterator[Kfp]:
    with kfp_server() as server:
        yield server


def client(kfp: Kfp, **kubeflow: str) -> Kubeflow:
    return Kubeflow(profile(kfp, kubeflow=kubeflow).kubeflow)


def parameters(kfp: Kfp) -> RunParameters:
    return RunParameters.of(profile(kfp), load("ci"))


def test_requests_and_answers_are_held_against_the_apis_own_document(kfp: Kfp) -> None:
    if not FILE.exists():
        pytest.skip(f"The API's document {FILE.name} is not in {FILE.parent}: requests are tried, not checked.")
    assert kfp.contract is not None
    create = kfp.contract.operation("POST", "/apis/v2beta1/recurringruns")
    assert kfp.contract.request(create, {}, {"display_name": "x", "max_concurrency": 1}, set())  # it wants a string
    assert kfp.contract.request(create, {"dry": "1"}, {"display_nam": "x"}, set())[0] == "query dry is unknown"
    assert kfp.contract.operation("POST", "/apis/v2beta1/recurringrun") is None


def test_a_version_is_uploaded_once_and_known_again(kfp: Kfp) -> None:
    version = Version.of(spec(), "v1")
    first, new = upload(client(kfp), compiled(), version)
    again, newer = upload(client(kfp), compiled(), version)
    assert (new, newer) == (True, False)
    assert first.version_id == again.version_id
    assert first.spec.sha256() == version.spec_sha256  # through Kubeflow and back nothing changes
    assert len(kfp.all("pipeline")) == 1
    assert version.spec_sha256 in kfp.all("pipeline_version")[0]["description"]


def test_the_latest_version_is_the_one_uploaded_last_whatever_the_pages(kfp: Kfp) -> None:
    names = [uploaded(kfp, git).name for git in ("v1", "v2", "v3")]
    assert deployed(client(kfp)).name == names[2]
    assert deployed(client(kfp), names[0]).name == names[0]
    assert set(version_names(client(kfp)).values()) == set(names)
    with pytest.raises(ConfigError, match="no version 'v9'"):
        deployed(client(kfp), "v9")


def test_a_kubeflow_without_the_pipeline_says_what_to_do(kfp: Kfp) -> None:
    with pytest.raises(ConfigError, match="no version of the pipeline") as caught:
        deployed(client(kfp))
    assert "upload" in caught.value.hint


def test_a_run_is_started_listed_and_ended(kfp: Kfp) -> None:
    version = uploaded(kfp)
    mine = [runs.submit(client(kfp), version, parameters(kfp)) for _ in range(5)]
    body = kfp.get("run", mine[0].id)
    assert body["pipeline_version_reference"]["pipeline_version_id"] == version.version_id
    assert body["runtime_config"]["parameters"]["store"] == "s3://bucket/sonarc"
    assert len(kfp.all("experiment")) == 1
    listed = runs.recent(client(kfp), 4)
    assert [run.id for run in listed] == [run.id for run in reversed(mine[1:])]  # newest first, over three pages
    assert runs.cancel(client(kfp), mine[0].name)[1]
    assert kfp.get("run", mine[0].id)["state"] == "CANCELING"
    kfp.get("run", mine[1].id)["state"] = "SUCCEEDED"
    assert runs.cancel(client(kfp), mine[1].id) == (runs.recent(client(kfp), 5)[3], False)
    with pytest.raises(ConfigError, match="no run 'other'"):
        runs.cancel(client(kfp), "other")


@pytest.mark.parametrize(
    "fault", [Fault(503), Fault(504, after=True), Fault(hang_up=True), Fault(after=True, hang_up=True)]
)
def test_a_run_whose_answer_is_lost_is_started_once(kfp: Kfp, fault: Fault) -> None:
    version = uploaded(kfp)
    fault.only = "POST /runs"
    kfp.faults.append(fault)
    run = runs.submit(client(kfp), version, parameters(kfp))
    assert [entry["run_id"] for entry in kfp.all("run")] == [run.id]
    assert kfp.faults == []


def test_two_who_upload_at_once_get_the_same_version(kfp: Kfp) -> None:
    kfp.faults.append(Fault(409, after=True, only="POST /pipelines/upload_version"))
    found = uploaded(kfp)
    assert found.version_id == kfp.all("pipeline_version")[0]["pipeline_version_id"]
    assert len(kfp.all("pipeline_version")) == 1


def test_reads_wait_out_a_server_that_is_away(kfp: Kfp) -> None:
    version = uploaded(kfp)
    kfp.faults += [Fault(503), Fault(429), Fault(hang_up=True)]
    assert deployed(client(kfp)).version_id == version.version_id
    assert kfp.faults == []


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault(500), r"failed \(500\): as told\."),
        (Fault(403), r"refuses \(403\)"),
        (Fault(302), r"sends elsewhere \(302\)"),
        (Fault(200, page="<html>Log in</html>"), "answered with text/html"),
    ],
)
def test_a_refusal_is_one_sentence_with_a_remedy(kfp: Kfp, fault: Fault, said: str) -> None:
    kfp.faults.append(fault)
    with pytest.raises(PlatformError, match=said) as caught:
        client(kfp).experiment_id  # noqa: B018  asking is what is tried
    assert kfp.address in caught.value.message
    assert caught.value.hint


def test_a_token_is_read_anew_and_never_shown(kfp: Kfp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SONARC_KFP_TOKEN", raising=False)
    kfp.token = "token-of-today"
    with pytest.raises(PlatformError, match=r"refuses \(401\).*user identity") as caught:
        client(kfp).experiment_id  # noqa: B018
    assert "SONARC_KFP_TOKEN" in caught.value.hint
    file = tmp_path / "token"
    file.write_text("token-of-yesterday\n")
    kubeflow = client(kfp, token_file=str(file))
    with pytest.raises(PlatformError, match="401") as caught:
        kubeflow.experiment_id  # noqa: B018
    assert "yesterday" not in str(caught.value)
    file.write_text("token-of-today\n")
    assert kubeflow.experiment_id
    monkeypatch.setenv("SONARC_KFP_TOKEN", "token-of-today")
    assert client(kfp).experiment_id
    with pytest.raises(ConfigError, match="nowhere"):
        client(kfp, token_file="nowhere").experiment_id  # noqa: B018


def test_a_host_that_is_not_there_is_named_with_a_remedy(kfp: Kfp) -> None:
    with pytest.raises(Away, match=r"http://127\.0\.0\.1:9 cannot be reached.*refused") as caught:
        client(kfp, host="http://127.0.0.1:9").experiment_id  # noqa: B018
    assert "port-forward" in caught.value.hint


def test_what_is_missing_is_told_apart(kfp: Kfp) -> None:
    kubeflow = client(kfp)
    with pytest.raises(Missing, match="not found"):
        kubeflow.ask(kubeflow.runs.run_service_get_run, "none")


@pytest.mark.parametrize(
    ("state", "done", "said"),
    [
        ("RUNNING", [], "running"),
        ("FAILED", ["ingest"], "failed"),
        ("CANCELED", [], "failed"),
        ("SUCCEEDED", [], "succeeded"),
        ("SUCCEEDED", ["begin", "sources", "ingest"], "nothing_new"),
        ("SUCCEEDED", ["ingest", "encode", "gate"], "refused"),
        ("SUCCEEDED", ["ingest", "encode", "gate", "promote"], "succeeded"),
    ],
)
def test_how_a_run_ended_in_our_words(kfp: Kfp, state: str, done: list[str], said: str) -> None:
    run = runs.submit(client(kfp), uploaded(kfp), parameters(kfp))
    tasks = [{"display_name": name, "state": "SUCCEEDED"} for name in done]
    tasks += [{"display_name": "smoke", "state": "SKIPPED"}]
    kfp.get("run", run.id).update({"state": state} | ({"run_details": {"task_details": tasks}} if done else {}))
    (now,) = runs.recent(client(kfp), 1)
    assert runs.outcome(client(kfp), now) == said
