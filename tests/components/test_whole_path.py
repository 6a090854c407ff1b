"""From a component's process to the result of its job on a real Ray, by either backend.

Behind the RayJob stands a double of Kubernetes and of KubeRay; what it submits, as KubeRay's submitter does, runs.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kube_api import FAILED, RUNNING, SUCCEEDED, KubeApi, initializing
from launcher import RUN
from sounds import file_of, tone

from components.launch import StageRecord
from components.launch.ray_jobs import RUN_KEY
from pipelines.local_ray import LocalRay, local_ray
from sonarc.contracts import store

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 900.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRay]:
    """A Ray whose jobs find the project."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        with local_ray(4, tmp_path_factory.mktemp("ray") / "ray.log") as running:
            yield running


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    """A source of one captioned sound."""
    folder = tmp_path / "audio"
    folder.mkdir()
    (folder / "tone.wav").write_bytes(file_of(tone()))
    row = {"path": "tone.wav", "captions": ["a tone"], "group": "tones"}
    (folder / "captions.jsonl").write_text(json.dumps(row), encoding="utf-8")
    return folder


def _component(head: LocalRay, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "tests" / "launcher.py"), *arguments],
        env=os.environ | head.env | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _launch(head: LocalRay, root: Path, audio: Path) -> tuple[StageRecord | None, str]:
    """The stage's record, if it succeeded, and what its component printed before."""
    child = _component(head, "launch", (root / "store").as_uri(), str(audio), head.address)
    out, err = child.communicate(timeout=PATIENCE_SECONDS)
    if child.returncode:
        return None, out + err
    *before, last = out.splitlines()
    return StageRecord.model_validate_json(last), "\n".join(before)


def _clean_up(head: LocalRay) -> list[str]:
    """Names of what the exit handler ended."""
    named: list[str] = json.loads(_component(head, "cleanup", head.address).communicate(timeout=PATIENCE_SECONDS)[0])
    return named


def _submits(head: LocalRay) -> Callable[[KubeApi, str], None]:
    """What the operator does with a RayJob once its cluster is up: the submitter hands it in, and prints its log."""

    def submit(api: KubeApi, name: str) -> None:
        spec = api.rayjobs[name]["spec"]
        python, _, rest = spec["entrypoint"].partition(" ")
        assert python == "python"  # the image's
        child = subprocess.Popen(
            [
                *(sys.executable, "-m", "ray.scripts.scripts", "job", "submit", "--address", head.address),
                *("--runtime-env-json", json.dumps(yaml.safe_load(spec["runtimeEnvYAML"]))),
                *("--", sys.executable, *rest.split()),
            ],
            env=os.environ | head.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        api.pod("submitter", {"job-name": name})
        assert child.stdout is not None
        for line in child.stdout:
            api.print("submitter", line.rstrip("\n"))
        code = child.wait()
        api.end_pod("submitter")
        api.status(name, FAILED | {"message": f"exit code {code}"} if code else SUCCEEDED)

    return submit


def test_a_rayjobs_entrypoint_really_makes_the_result(
    head: LocalRay, cluster: KubeApi, tmp_path: Path, audio: Path
) -> None:
    cluster.life = (initializing(), RUNNING, _submits(head))
    record, printed = _launch(head, tmp_path, audio)
    assert record is not None, printed
    assert store.read_json(record.result.outputs["sources"].uri)[0]["name"] == "mine"
    assert "sources finished in" in printed
    again, _ = _launch(head, tmp_path, audio)
    assert again is not None and again.cached
    assert len(cluster.asked("POST")) == 1
    assert _clean_up(head) == [cluster.created[0]["metadata"]["name"]]

    def loses_its_source(api: KubeApi, name: str) -> None:
        shutil.rmtree(audio)

    (audio / "captions.jsonl").write_text("", encoding="utf-8")  # another key, so another run
    cluster.life = (loses_its_source, RUNNING, _submits(head))
    record, printed = _launch(head, tmp_path, audio)
    assert record is None
    assert "SourceError" in printed and "'mine'" in printed  # the job's own words


def test_the_jobs_api_runs_stops_and_cleans_up(head: LocalRay, tmp_path: Path, audio: Path) -> None:
    known = set(_jobs(head))
    record, printed = _launch(head, tmp_path, audio)
    assert record is not None and not record.cached, printed
    assert "sources finished in" in printed
    (done,) = set(_jobs(head)) - known
    assert _jobs(head)[done]["metadata"] == {RUN_KEY: RUN}

    left, other = (_submit(head, run) for run in (RUN, "another"))
    assert _clean_up(head) == [left]
    _wait(lambda: _jobs(head)[left]["status"] == "STOPPED")
    assert _clean_up(head) == []
    assert _jobs(head)[other]["status"] in ("PENDING", "RUNNING")

    (audio / "captions.jsonl").write_text("", encoding="utf-8")
    known = set(_jobs(head))
    child = _component(head, "launch", (tmp_path / "store").as_uri(), str(audio), head.address)
    _wait(lambda: len(_jobs(head)) > len(known))
    child.send_signal(signal.SIGTERM)
    assert child.wait(PATIENCE_SECONDS) != 0
    (ended,) = set(_jobs(head)) - known
    _wait(lambda: _jobs(head)[ended]["status"] == "STOPPED")


def _ask(head: LocalRay, body: dict[str, Any] | None = None) -> Any:
    request = urllib.request.Request(
        f"{head.address}/api/jobs/",
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {head.env['RAY_AUTH_TOKEN']}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


def _jobs(head: LocalRay) -> dict[str, dict[str, Any]]:
    return {job["submission_id"]: job for job in _ask(head) if job["submission_id"]}


def _submit(head: LocalRay, run: str) -> str:
    forever = shlex.join([sys.executable, "-c", "import time; time.sleep(600)"])
    return str(_ask(head, {"entrypoint": forever, "metadata": {RUN_KEY: run}})["submission_id"])


def _wait(true: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while not true():
        assert time.monotonic() < until
        time.sleep(0.2)
