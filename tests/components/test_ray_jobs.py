"""A stage as a job of a running Ray, whose dashboard stumbles."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from loopback import serving

from components.launch import ray_jobs
from components.launch.backend import StageJob
from components.launch.ray_jobs import RUN_KEY, STAGE_KEY, RayJobs
from sonarc.contracts.errors import StageError
from sonarc.contracts.presets import load
from sonarc.contracts.result import StageRequest

Job = dict[str, Any]


class Dashboard:
    """The jobs API's double: a job ends when it has been looked at three times, or is stopped."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.looks: dict[str, int] = {}
        self.faults: list[tuple[str, int]] = []
        """Method and path, and the status with which the next such request is answered."""
        self.agentless = 0
        """So many submissions are answered as by a dashboard whose agent is not up yet."""
        self.address = ""

    def put(self, name: str, status: str = "RUNNING", **metadata: str) -> Job:
        self.jobs[name] = {
            "type": "SUBMISSION", "submission_id": name, "status": status, "entrypoint": "x", "metadata": metadata,
        }  # fmt: skip
        return self.jobs[name]

    def answer(self, asked: str, body: Job) -> Any:
        method, _, path = asked.partition(" ")
        name, _, what = path.removeprefix("/api/jobs/").partition("/")
        if path == "/api/version":
            return {"version": "4", "ray_version": "2.60.0", "ray_commit": "x", "session_name": "x"}
        if method == "POST" and not name and self.agentless:
            self.agentless -= 1
            raise LookupError("No available agent to submit job, please try again later.")
        if method == "POST" and not name:
            self.put(body["submission_id"], **body["metadata"])
            return {"job_id": body["submission_id"], "submission_id": body["submission_id"]}
        if not name:
            return list(self.jobs.values())
        if what == "stop":
            self.jobs[name]["status"] = "STOPPED"
            return {"stopped": True}
        self.looks[name] = self.looks.get(name, 0) + (what == "")
        if self.looks[name] == 3 and self.jobs[name]["status"] == "RUNNING":
            self.jobs[name]["status"] = "SUCCEEDED"
        lines = "".join(f"line {number}\n" for number in range(self.looks[name]))
        return {"logs": lines} if what == "logs" else self.jobs[name]


@pytest.fixture
def dashboard(monkeypatch: pytest.MonkeyPatch) -> Iterator[Dashboard]:
    monkeypatch.setattr(ray_jobs, "POLL_SECONDS", (0.01, 0.01))
    double = Dashboard()

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            asked = f"{self.command} {self.path}"
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "{}")
            fault = next((fault for fault in double.faults if asked.startswith(fault[0])), None)
            if fault:
                double.faults.remove(fault)
            status, text = 200, ""
            try:
                if not (fault and self.command == "GET"):
                    text = json.dumps(double.answer(asked, body))
            except LookupError as error:
                status, text = 500, str(error)
            if fault:
                status, text = fault[1], "told to"
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        do_GET = do_POST = _serve

        def log_message(self, format: str, *args: object) -> None:
            pass

    with serving(Handler) as port:
        double.address = f"http://127.0.0.1:{port}"
        yield double


def _job(root: Path, run: str = "a-run") -> StageJob:
    request = StageRequest(stage="sources", store=(root / "store").as_uri(), config=load("ci"))
    return StageJob(request, request.folder(), run)


def test_a_dashboard_that_is_away_for_a_while_ends_no_job(
    dashboard: Dashboard, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    dashboard.faults = [("GET /api/jobs/sources-", 500)] * 4
    ended = RayJobs(dashboard.address).run(_job(tmp_path))
    assert ended.succeeded and ended.log == "line 0\nline 1\nline 2"
    assert capsys.readouterr().out == "line 0\nline 1\nline 2\n"
    assert not any(job["status"] == "STOPPED" for job in dashboard.jobs.values())

    monkeypatch.setattr(ray_jobs, "PATIENCE_SECONDS", 0.0)
    dashboard.faults = [("GET /api/jobs/sources-", 500)] * 4
    with pytest.raises(StageError, match="has not told of the job sources-") as caught:
        RayJobs(dashboard.address).run(_job(tmp_path))
    assert "ray job status sources-" in caught.value.hint
    assert [job["status"] for job in dashboard.jobs.values()] == ["SUCCEEDED", "STOPPED"]


def test_a_job_whose_submission_was_not_answered_is_stopped(dashboard: Dashboard, tmp_path: Path) -> None:
    dashboard.faults = [("POST /api/jobs/", 500)]
    with pytest.raises(RuntimeError, match="told to"):
        RayJobs(dashboard.address).run(_job(tmp_path))
    assert [job["status"] for job in dashboard.jobs.values()] == ["STOPPED"]


def test_a_job_waits_for_the_agent_that_starts_jobs(
    dashboard: Dashboard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dashboard.agentless = 3
    assert RayJobs(dashboard.address).run(_job(tmp_path)).succeeded
    assert len(dashboard.jobs) == 1

    monkeypatch.setattr(ray_jobs, "PATIENCE_SECONDS", 0.0)
    dashboard.agentless = 3
    with pytest.raises(StageError, match="nobody to start jobs"):
        RayJobs(dashboard.address).run(_job(tmp_path))


def test_what_an_earlier_attempt_left_is_stopped_before_the_next_begins(dashboard: Dashboard, tmp_path: Path) -> None:
    dashboard.put("earlier", **{RUN_KEY: "a-run", STAGE_KEY: "sources"})
    others = {
        "another stage": {RUN_KEY: "a-run", STAGE_KEY: "ingest"},
        "another run": {RUN_KEY: "b-run", STAGE_KEY: "sources"},
        "somebody's": {},
    }
    for name, metadata in others.items():
        dashboard.put(name, **metadata)
    assert RayJobs(dashboard.address).run(_job(tmp_path)).succeeded
    assert dashboard.jobs["earlier"]["status"] == "STOPPED"
    assert {dashboard.jobs[name]["status"] for name in others} == {"RUNNING"}


def test_cleanup_stops_the_jobs_of_a_run_and_only_those(dashboard: Dashboard) -> None:
    dashboard.put("ours", **{RUN_KEY: "a-run", STAGE_KEY: "sources"})
    dashboard.put("over", "SUCCEEDED", **{RUN_KEY: "a-run"})
    dashboard.put("theirs", **{RUN_KEY: "b-run"})
    assert RayJobs(dashboard.address).cleanup("a-run") == ["ours"]
    assert {name: job["status"] for name, job in dashboard.jobs.items()} == {
        "ours": "STOPPED", "over": "SUCCEEDED", "theirs": "RUNNING",
    }  # fmt: skip
