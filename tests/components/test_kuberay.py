"""A stage as a KubeRay RayJob, from its component to its result, on a Kubernetes API that stumbles."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, timedelta, timezone
from pathlib import Path

import pytest
from kube_api import FAILED, RUNNING, SUCCEEDED, SUSPENDED, KubeApi, Object, Step, initializing, watches

from components.launch import cleanup, follow, launch, pod_log
from components.launch.attempt import ORDER, TOKEN, Attempt
from components.launch.kube import UnreachableError
from sonarc.contracts import store
from sonarc.contracts.errors import ConfigError, DataError, StageError
from sonarc.contracts.presets import load
from sonarc.contracts.progress import read_progress
from sonarc.contracts.result import Artifact, StageFailure, StageRequest, StageResult, write_result

RUN = "0f3a-run"


def _request(root: Path) -> StageRequest:
    return StageRequest(stage="sources", store=(root / "store").as_uri(), config=load("ci"))


def _launch(root: Path, run_name: str = ""):
    request = _request(root)
    return launch(
        "sources",
        config=request.config.model_dump_json(),
        store_uri=request.store,
        tracking="",
        ray_address="",
        progress=str(root / "run" / "progress.jsonl"),
        inputs={},
        run_name=run_name,
    )


def _leaves(root: Path, error: StageFailure | None = None) -> Callable[[KubeApi, str], None]:
    """The job writes its result."""
    request = _request(root)

    def write(api: KubeApi, name: str) -> None:
        status = "failed" if error else "succeeded"
        outputs = {} if error else {"sources": Artifact(uri="file:///x", sha256="a")}
        result = StageResult(stage="sources", key=request.key(), status=status, outputs=outputs, error=error)
        write_result(request.folder(), result)

    return write


def _said(root: Path) -> list[str]:
    events, _ = read_progress(root / "run" / "progress.jsonl")
    return [event.message for event in events]


def _mine(**environ: str) -> Attempt:
    return Attempt.here(RUN, "sources", {"KFP_POD_UID": "pod-uid-1"} | environ)


def _put(api: KubeApi, attempt: Attempt, status: Object | None = None) -> None:
    api.put(attempt.name, labels=attempt.labels, annotations=attempt.annotations)
    if status is not None:
        api.status(attempt.name, status)


def test_a_stage_becomes_a_rayjob_and_its_result_comes_back(cluster: KubeApi, tmp_path: Path) -> None:
    cluster.life = (initializing(), watches(1), RUNNING, _leaves(tmp_path), SUCCEEDED)
    record = _launch(tmp_path)
    assert record.result.outputs["sources"].sha256 == "a"
    (made,) = cluster.created
    name = made["metadata"]["name"]
    assert re.fullmatch(r"[a-z][-a-z0-9]{0,46}", name)
    assert made["metadata"]["labels"]["sonarc/run"] == RUN
    assert made["metadata"]["ownerReferences"] == [
        {"apiVersion": "v1", "kind": "Pod", "name": "pretrain-pod", "uid": "pod-uid-1"}
    ]
    command = made["spec"]["entrypoint"].split()
    assert command[:3] == ["python", "-m", "ray_jobs.sources"]
    assert StageRequest.model_validate_json(store.read_bytes(command[-1])) == _request(tmp_path).model_copy(
        update={"progress": str(tmp_path / "run" / "progress.jsonl")}
    )
    said = _said(tmp_path)
    assert said[0] == f"made the RayJob {name}" and said[-2:] == ["runs on c1", "done"]
    assert name in cluster.rayjobs  # it stays to be looked at, until its time is up or the run is cleaned up


def test_a_job_in_the_queue_is_waited_for(cluster: KubeApi, tmp_path: Path, settings: Callable[..., None]) -> None:
    settings(queue="audio")

    def admit(api: KubeApi, name: str) -> None:
        time.sleep(0.2)
        with api.changed:
            api.rayjobs[name]["spec"]["suspend"] = False

    suspending = {"jobDeploymentStatus": "Suspending"}
    cluster.life = (
        *(initializing(), watches(1), suspending, SUSPENDED, admit, initializing(), RUNNING),
        *(suspending, SUSPENDED, initializing("c2"), RUNNING | {"rayClusterName": "c2"}),  # preempted once
        *(_leaves(tmp_path), SUCCEEDED),
    )
    _launch(tmp_path)
    (made,) = cluster.created
    assert made["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "audio"
    assert made["spec"]["suspend"] and made["spec"]["shutdownAfterJobFinishes"]
    said = _said(tmp_path)
    assert said.count("waits in the queue audio") == 2
    assert said[-2:] == ["runs on c2", "done"]


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (SUCCEEDED | {"jobStatus": "STOPPED", "message": "stopped by hand"}, "STOPPED: stopped by hand"),
        (SUCCEEDED | {"jobStatus": "FAILED"}, "FAILED"),
        (SUCCEEDED | {"jobStatus": ""}, "Complete"),
        (FAILED, "FAILED: exit 1"),
        (SUCCEEDED, "SUCCEEDED"),  # but left no result
    ],
)
def test_only_complete_and_succeeded_with_a_result_is_success(
    cluster: KubeApi, tmp_path: Path, status: Object, told: str
) -> None:
    cluster.life = (RUNNING, status)
    with pytest.raises(StageError, match=rf"sources ended without a result \({told}"):
        _launch(tmp_path)


def test_a_stage_that_fails_is_reported_in_its_own_words(cluster: KubeApi, tmp_path: Path) -> None:
    cluster.life = (RUNNING, _leaves(tmp_path, StageFailure(code="data", message="Nothing to hear.")), FAILED)
    with pytest.raises(DataError, match=r"Nothing to hear\."):
        _launch(tmp_path)


@pytest.mark.parametrize(
    ("status", "told", "hint"),
    [
        (
            {"jobDeploymentStatus": "ValidationFailed", "message": "name too long"},
            "refuses .*name too long",
            "describe",
        ),
        (FAILED | {"reason": "DeadlineExceeded"}, r"ended after its 86400 s", "deadline_seconds"),
        (FAILED | {"reason": "PreRunningDeadlineExceeded"}, r"not up within 1800 s", "get pods"),
        (FAILED | {"reason": "SubmissionFailed", "message": "BackoffLimitExceeded"}, "SubmissionFailed.*Backoff", "-n"),
        (FAILED | {"reason": ""}, "no reason given", "describe rayjob sonarc-sources"),
    ],
)
def test_what_the_cluster_ends_is_told_from_what_the_job_does(
    cluster: KubeApi, tmp_path: Path, status: Object, told: str, hint: str
) -> None:
    cluster.life = (initializing(), status)
    with pytest.raises(StageError, match=told) as caught:
        _launch(tmp_path)
    assert hint in caught.value.hint and "kubectl -n sonarc" in caught.value.hint
    assert cluster.rayjobs  # to be looked at


def test_an_image_that_does_not_come_is_a_failure_that_names_it(cluster: KubeApi, tmp_path: Path) -> None:
    def stuck(api: KubeApi, name: str) -> None:
        waiting = {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "sonarc/worker:1.0"'}
        api.pod("c1-head", {"ray.io/cluster": "c1"}, phase="Pending", waiting=waiting)

    cluster.life = (stuck, initializing())
    with pytest.raises(StageError, match=r"an image cannot be pulled \(i:1 in c1-head\)") as caught:
        _launch(tmp_path)
    assert "Back-off" in caught.value.hint and "involvedObject.name=c1-head" in caught.value.hint
    _wait(lambda: not cluster.rayjobs)  # nothing goes on trying


def test_pods_that_a_quota_refuses_are_a_failure_that_says_so(cluster: KubeApi, tmp_path: Path) -> None:
    condition = {
        "type": "ReplicaFailure",
        "status": "True",
        "reason": "FailedCreateHeadPod",
        "message": "exceeded quota",
    }
    cluster.life = (initializing() | {"rayClusterStatus": {"conditions": [condition]}},)
    with pytest.raises(StageError, match=r"a pod is refused \(FailedCreateHeadPod\): exceeded quota"):
        _launch(tmp_path)


@pytest.mark.parametrize(
    ("code", "told", "hint"),
    [
        (403, "exceeded quota: gpus", "auth can-i"),
        (422, "spec.entrypoint: Required", "admission"),
        (400, "admission webhook denied", "admission"),
        (404, "the server could not find the resource", "get crd rayjobs.ray.io"),
        (401, "Unauthorized", "token"),
    ],
)
def test_a_refused_create_says_why_and_is_not_repeated(
    cluster: KubeApi, tmp_path: Path, code: int, told: str, hint: str
) -> None:
    cluster.fail("POST", code, told)
    with pytest.raises(StageError, match=re.escape(told)) as caught:
        _launch(tmp_path)
    assert hint in caught.value.hint
    assert len(cluster.asked("POST")) == 1


def test_calls_are_repeated_and_a_create_whose_answer_was_lost_makes_one_job(cluster: KubeApi, tmp_path: Path) -> None:
    cluster.life = (_leaves(tmp_path), RUNNING, SUCCEEDED)
    cluster.fail("GET", 429, headers={"Retry-After": "0"})
    cluster.fail("POST", 500)
    cluster.fail("POST", 503, after=True)
    _launch(tmp_path)
    assert len(cluster.asked("POST")) == 3
    assert len(cluster.rayjobs) == 1


def test_a_name_that_somebody_else_has_is_an_error_and_theirs_stays(cluster: KubeApi, tmp_path: Path) -> None:
    cluster.put(_mine().name)
    with pytest.raises(StageError, match="is taken"):
        _launch(tmp_path)
    assert cluster.asked("DELETE") == []


def test_the_same_attempt_adopts_what_it_made_before(cluster: KubeApi, tmp_path: Path) -> None:
    attempt = _mine()
    _put(cluster, attempt, RUNNING)
    request = _request(tmp_path)
    store.write_json(store.join(request.folder(), "keep.json"), {})

    def end(api: KubeApi, name: str) -> None:
        _leaves(tmp_path)(api, name)
        api.status(attempt.name, SUCCEEDED)

    _later(lambda: end(cluster, attempt.name))
    assert not _launch(tmp_path).cached
    assert cluster.asked("POST") == []
    assert f"found its RayJob {attempt.name}" in _said(tmp_path)


def test_a_new_attempt_waits_until_its_predecessors_are_gone(cluster: KubeApi, tmp_path: Path) -> None:
    earlier = _mine(KFP_POD_UID="pod-uid-0")
    _put(cluster, earlier, RUNNING)
    other = Attempt.here(RUN, "ingest", {"KFP_POD_UID": "pod-uid-0"})
    _put(cluster, other, RUNNING)
    cluster.life = (_leaves(tmp_path), SUCCEEDED)
    _launch(tmp_path)
    (made,) = cluster.created
    assert made["metadata"]["name"] not in (earlier.name, other.name)
    assert set(cluster.rayjobs) == {made["metadata"]["name"], other.name}
    happened = [(kind, event["metadata"]["name"]) for _, kind, event in cluster.events]
    assert happened.index(("DELETED", earlier.name)) < happened.index(("ADDED", made["metadata"]["name"]))


@pytest.mark.parametrize("by", ["retry index", "time"])
def test_an_attempt_that_was_overtaken_does_not_start(
    cluster: KubeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    later = _mine(KFP_POD_UID="pod-uid-2", KFP_RETRY_INDEX="1")
    annotations = later.annotations if by == "retry index" else {TOKEN: "x", ORDER: "000000 2999-01-01T00:00:00Z"}
    cluster.put(later.name, labels=later.labels, annotations=annotations)
    with pytest.raises(StageError, match="later attempt at sources has taken over"):
        _launch(tmp_path)
    assert list(cluster.rayjobs) == [later.name]
    assert cluster.created == []


def test_an_attempt_that_is_overtaken_while_it_starts_takes_its_job_back(cluster: KubeApi, tmp_path: Path) -> None:
    later = _mine(KFP_POD_UID="pod-uid-2", KFP_RETRY_INDEX="1")
    add = cluster.add

    def both(body: Object, life: tuple[Step, ...] | None = None) -> Object:
        cluster.add = add  # type: ignore[method-assign]
        _put(cluster, later)
        return add(body, life)

    cluster.add = both  # type: ignore[method-assign]
    with pytest.raises(StageError, match="has taken over"):
        _launch(tmp_path)
    _wait(lambda: list(cluster.rayjobs) == [later.name])


def test_a_watch_that_lost_its_place_lists_anew(cluster: KubeApi, tmp_path: Path) -> None:
    def compact(api: KubeApi, name: str) -> None:
        api.compact()

    cluster.fail("WATCH", 410, "too old")
    cluster.life = (
        *(initializing(), watches(2), compact),
        *(watches(3), RUNNING, compact),
        *(watches(4), _leaves(tmp_path), SUCCEEDED),
    )
    _launch(tmp_path)
    lists = [query for query in cluster.asked("GET", "rayjobs$") if "watch" not in query and "fieldSelector" in query]
    assert len(lists) >= 3


def test_a_watch_goes_on_from_its_bookmark(cluster: KubeApi, tmp_path: Path) -> None:
    def other_news(api: KubeApi, name: str) -> None:
        for number in range(3):
            api.put(f"another-{number}")

    cluster.life = (RUNNING, watches(1), other_news, watches(3), _leaves(tmp_path), SUCCEEDED)
    _launch(tmp_path)
    versions = [int(query["resourceVersion"]) for query in cluster.asked("GET") if query.get("watch")]
    assert versions == sorted(versions) and versions[-1] >= versions[0] + 3


def test_an_api_server_that_is_away_for_a_while_is_waited_for(
    cluster: KubeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(api: KubeApi, name: str) -> None:
        for _ in range(12):
            api.fail("GET", 503)
            api.fail("WATCH", 500)
        api.compact()

    cluster.life = (RUNNING, watches(1), away, _leaves(tmp_path), SUCCEEDED)
    _launch(tmp_path)

    monkeypatch.setattr(follow, "PATIENCE_SECONDS", 0.0)
    store.remove_folder(_request(tmp_path).folder())
    cluster.faults.clear()
    cluster.life = (RUNNING, watches(1), away)
    with pytest.raises(StageError, match="did not list") as caught:
        _launch(tmp_path, "another run")
    assert "kubectl get rayjob" in caught.value.hint


class Cut:
    """An API server behind a proxy that cuts every stream after 20 s; time goes by when something waits."""

    namespace = "sonarc"

    def __init__(self) -> None:
        self.now, self.away = 0.0, False

    def rayjobs(self, name: str) -> tuple[list[Object], str]:
        if self.away:
            raise UnreachableError("did not list")
        return [{"metadata": {"name": name}}], "1"

    def watch(self, name: str, version: str, seconds: int) -> Iterator[tuple[str, Object]]:
        self.now += 20
        raise UnreachableError("did not watch")

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_an_api_server_that_answers_though_no_watch_of_it_holds_is_not_away(monkeypatch: pytest.MonkeyPatch) -> None:
    cut = Cut()
    monkeypatch.setattr(follow, "time", cut)
    states = follow.states(cut, "job")  # type: ignore[arg-type]
    assert [next(states)["metadata"]["name"] for _ in range(100)] == ["job"] * 100
    cut.away = True
    with pytest.raises(StageError, match="did not list"):
        next(states)
    assert cut.now > 100 * 20 + follow.PATIENCE_SECONDS


def test_a_job_that_is_removed_under_our_feet_is_a_failure(cluster: KubeApi, tmp_path: Path) -> None:
    cluster.life = (RUNNING, lambda api, name: api.delete(name))
    with pytest.raises(StageError, match="was removed while it ran"):
        _launch(tmp_path)


def test_sigterm_removes_the_job(cluster: KubeApi, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    cluster.life = (RUNNING, lambda api, name: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(KeyboardInterrupt):
        _launch(tmp_path)
    assert len(cluster.asked("DELETE")) == 1
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("hours", [0, 8, -5], ids=["UTC", "east", "west"])
def test_the_log_comes_once_though_its_stream_breaks_and_its_pod_is_replaced(
    cluster: KubeApi, tmp_path: Path, capsys: pytest.CaptureFixture[str], hours: int
) -> None:
    cluster.zone = timezone(timedelta(hours=hours)) if hours else UTC
    cluster.cuts = {"first": [2, 1], "second": [0]}

    def submitter(pod: str, lines: range) -> Callable[[KubeApi, str], None]:
        def print_lines(api: KubeApi, name: str) -> None:
            api.pod(pod, {"job-name": name})
            for number in lines:
                api.print(pod, f"line {number}")
                time.sleep(0.02)
            api.end_pod(pod, "Failed" if pod == "first" else "Succeeded")

        return print_lines

    cluster.life = (RUNNING, submitter("first", range(6)), submitter("second", range(6, 9)), FAILED)
    with pytest.raises(StageError) as caught:
        _launch(tmp_path)
    shown = capsys.readouterr().out.splitlines()
    assert [line for line in shown if line.startswith("line")] == [f"line {number}" for number in range(9)]
    assert "[first was replaced by second; the log begins anew]" in shown
    assert caught.value.hint.endswith("line 7\nline 8")


def test_lines_of_a_log_sort_by_their_moment_and_not_by_the_clock_on_the_wall() -> None:
    moments = [
        pod_log.moment_of(stamp)
        for stamp in (
            "2026-10-25T02:59:59.999999998+02:00",
            "2026-10-25T02:59:59.999999999+02:00",
            "2026-10-25T02:00:00+01:00",  # summer time has ended
            "2026-10-25T01:00:00.1Z",
            "2026-10-25T01:00:00.100000001Z",
        )
    ]
    assert None not in moments and moments == sorted({*moments})  # type: ignore[type-var]
    assert pod_log.moment_of("unable") is None  # "… to retrieve container logs", says the kubelet


def test_a_job_goes_on_where_its_log_and_pods_may_not_be_read(
    cluster: KubeApi, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.fail("GET", 403, "pods is forbidden", path="pods")
    cluster.fail("GET", 403, "pods is forbidden", path="pods")
    cluster.pace = 0.1
    cluster.life = (initializing(), RUNNING, _leaves(tmp_path), SUCCEEDED)
    assert not _launch(tmp_path).cached
    assert "log is not shown here" in capsys.readouterr().err


def test_no_secret_leaves_this_process(
    cluster: KubeApi,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    secret = "hunter2-of-the-store"
    for name in ("AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD", "SONARC_TUNE_STORAGE", "RAY_AUTH_TOKEN"):
        monkeypatch.setenv(name, secret)
    reference = {"AWS_SECRET_ACCESS_KEY": {"secret": "store", "key": "secret-key"}}
    settings(secret_env=reference, secrets=["mlflow"])
    cluster.fail("POST", 500)
    cluster.life = (RUNNING, FAILED)
    with pytest.raises(StageError) as caught:
        _launch(tmp_path)
    told = json.dumps([cluster.created, cluster.requests]) + "".join(capsys.readouterr()) + str(caught.value)
    assert secret not in told and "the-token" not in told
    container = cluster.created[-1]["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    by_reference = {"secretKeyRef": {"name": "store", "key": "secret-key"}}
    assert {"name": "AWS_SECRET_ACCESS_KEY", "valueFrom": by_reference} in container["env"]
    assert container["envFrom"] == [{"secretRef": {"name": "mlflow"}}]
    assert not any(secret in file.read_text("utf-8") for file in tmp_path.rglob("*.json*"))


def test_cleanup_removes_all_of_a_run_and_only_that_and_may_be_repeated(cluster: KubeApi) -> None:
    ours = [Attempt.here(RUN, stage, {"KFP_POD_UID": uid}) for stage in ("ingest", "tune") for uid in ("1", "2")]
    theirs = Attempt.here("another-run", "tune", {"KFP_POD_UID": "1"})
    for attempt in (*ours, theirs):
        _put(cluster, attempt, RUNNING)
    assert sorted(cleanup(RUN)) == sorted(attempt.name for attempt in ours)
    cleanup(RUN)
    _wait(lambda: list(cluster.rayjobs) == [theirs.name])
    assert cleanup(RUN) == []


def test_a_run_is_named_or_refused(cluster: KubeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KFP_RUN_ID")
    cluster.life = (_leaves(tmp_path), SUCCEEDED)
    _launch(tmp_path, "weekly retrain №7")
    label = cluster.created[0]["metadata"]["labels"]["sonarc/run"]
    assert re.fullmatch("[0-9a-f]{10}", label)  # no value of a label, so its hash stands for it
    assert cleanup("weekly retrain №7") == [cluster.created[0]["metadata"]["name"]]
    request = _request(tmp_path / "b")
    with pytest.raises(ConfigError, match="has no name"):
        launch(
            "sources",
            config=request.config.model_dump_json(),
            store_uri=request.store,
            tracking="",
            ray_address="",
            progress="",
            inputs={},
        )


def test_a_store_that_a_shell_would_misread_is_refused(cluster: KubeApi, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds characters"):
        launch(
            "sources",
            config=load("ci").model_dump_json(),
            store_uri=(tmp_path / "a$(b)").as_uri().replace("%24", "$").replace("%28", "(").replace("%29", ")"),
            tracking="",
            ray_address="",
            progress="",
            inputs={},
        )
    assert cluster.created == []


def test_another_namespace_may_be_named(cluster: KubeApi, tmp_path: Path, settings: Callable[..., None]) -> None:
    settings(namespace="gpu-jobs")
    with pytest.raises(StageError, match="gpu-jobs"):  # which the double has not
        _launch(tmp_path)


def _wait(true: Callable[[], bool]) -> None:
    until = time.monotonic() + 10
    while not true():
        assert time.monotonic() < until
        time.sleep(0.01)


def _later(act: Callable[[], None]) -> None:
    threading.Timer(0.1, act).start()
