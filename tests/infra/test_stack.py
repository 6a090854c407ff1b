"""The server profile on one machine: services up, the pipeline against them by one flag, the endpoint, a rollback."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
import soundfile
import yaml

from infra.stack.layout import ADMIN
from infra.stack.nodes import NODES, alive_nodes
from infra.stack.ports import ports_of
from infra.stack.secret_files import SecretFiles
from pipelines.server import read_server_profile
from sonarc.contracts.processes import free_port, tree
from sonarc.contracts.stages import STAGES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(5_400)]
PATIENCE = 300.0
NODE_CPUS = 2
MODEL = "sonarc-ci"


@dataclass
class Stack:
    """A running stack, and what its user types."""

    folder: Path

    def does(self, *words: str) -> str:
        """One verb of `python -m infra.stack`."""
        verb, *rest = words
        return _run("-m", "infra.stack", verb, "--data", str(self.folder), *rest)

    def sonarc(self, *words: str) -> str:
        """One command of `sonarc`, with the one flag."""
        return _run("-m", "pipelines.cli", *words, "--profile", str(self.profile))

    @property
    def profile(self) -> Path:
        return self.folder / "stack.yaml"

    @property
    def secrets(self) -> SecretFiles:
        return SecretFiles(self.folder / "secrets")

    def address(self, name: str) -> str:
        return f"http://127.0.0.1:{ports_of(self.folder)[name]}"

    def get(self, name: str, path: str, **options: Any) -> httpx.Response:
        return httpx.get(self.address(name) + path, timeout=60.0, trust_env=False, **options)

    def ask(self, key: str) -> httpx.Response:
        """A short clip of the endpoint."""
        body = {"prompt": "a kick drum", "seconds": 0.5, "seed": 1}
        url = self.address("endpoint") + "/v1/audio/generations"
        login = {"Authorization": f"Bearer {key}"}
        return httpx.post(url, json=body, headers=login, timeout=120.0, trust_env=False)

    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "runs" / "latest" / "summary.json").read_text())
        return found


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    # Not pytest's own folder: as root, PostgreSQL's user could not enter that.
    folder = Path(tempfile.mkdtemp(prefix="sonarc-stack-"))
    folder.chmod(0o755)
    made = Stack(folder)
    ports = [word for name in ports_of(folder) for word in ("--port", f"{name}={free_port()}")]
    try:
        made.does("up", "--cpus", str(NODE_CPUS), "--object-store-mb", "256", *ports)
        yield made
    finally:
        made.does("down")
        assert not _of(folder), "processes are left"


def test_the_pipeline_by_one_flag_a_request_a_query_and_a_rollback(stack: Stack) -> None:
    key = stack.secrets.value("endpoint-key")
    assert alive_nodes(stack.address("ray"), stack.secrets.value("ray-token")) == NODES
    stack.sonarc("run", "--preset", "ci", "--quiet")
    first = stack.summary()
    assert first["status"] == "succeeded" and first["endpoint"] == stack.address("endpoint")
    _where_things_are(stack)

    answer = stack.ask(key)
    assert answer.status_code == 200 and answer.headers["x-sonarc-model"] == f"{MODEL}/1"
    audio_SA, _ = soundfile.read(io.BytesIO(answer.content), dtype="float32", always_2d=True)
    assert np.abs(audio_SA).max() > 1e-3
    assert stack.ask("sonarc-wrong").status_code == 401

    query = 'sum(sonarc_requests_total{route="/v1/audio/generations",status="200"})'
    _until(lambda: _value(stack, query) >= 2, "Prometheus to count the smoke test's request and ours")
    _until(lambda: _value(stack, f'count(up{{job="ray"}} == 1) >= {NODES}') >= NODES, "figures of Ray's nodes")
    rules = stack.get("prometheus", "/api/v1/rules").json()["data"]["groups"]
    assert "SonarcErrors" in {rule["name"] for group in rules for rule in group["rules"]}

    # Another evaluation makes another package of the same weights: what comes before it is cached.
    stack.sonarc("run", "--preset", "ci", "--quiet", "--set", "evaluate.bootstrap=60")
    assert stack.ask(key).headers["x-sonarc-model"] == f"{MODEL}/2"
    stack.sonarc("models", "rollback", "--model", MODEL, "--why", "a test of going back")
    _until(lambda: stack.ask(key).headers.get("x-sonarc-model") == f"{MODEL}/1", "the endpoint to go back")
    assert "a test of going back" in stack.sonarc("models", "log", "--model", MODEL)

    _nothing_secret(stack)
    _nothing_is_heard_elsewhere(stack)


def test_a_part_that_dies_is_told_and_started_again_and_the_endpoint_comes_back_with_the_rest(stack: Stack) -> None:
    victim = json.loads((stack.folder / "run" / "prometheus.json").read_text())["pid"]
    psutil.Process(victim).kill()
    _until(lambda: not psutil.pid_exists(victim), "Prometheus to end")
    told = subprocess.run(
        [sys.executable, "-m", "infra.stack", "status", "--data", str(stack.folder)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert told.returncode == 1 and "prometheus  died" in told.stdout
    assert "1 started, 6 ran already" in stack.does("up")
    assert "died" not in stack.does("status")

    stack.does("down")
    assert not _of(stack.folder)
    stack.does("up", "--cpus", str(NODE_CPUS), "--object-store-mb", "256", "--port", f"endpoint={free_port()}")
    answer = stack.ask(stack.secrets.value("endpoint-key"))
    assert answer.status_code == 200 and answer.headers["x-sonarc-model"] == f"{MODEL}/1"


def _where_things_are(stack: Stack) -> None:
    """Data and packages are in the bucket, runs in PostgreSQL behind accounts, stages were jobs of the stack's Ray."""
    objects = stack.folder / "objects" / "sonarc"
    assert {"stages", "packages"} <= {path.name for path in (objects / "store").iterdir()}
    assert list((objects / "mlflow").rglob("summary.json"))
    listing = "/api/2.0/mlflow/runs/search"
    search = {"experiment_ids": ["0", "1", "2"], "max_results": 100}
    url = stack.address("mlflow") + listing
    assert httpx.post(url, json=search, timeout=60.0, trust_env=False).status_code == 401
    login = (ADMIN, stack.secrets.value("mlflow-admin"))
    runs = httpx.post(url, json=search, auth=login, timeout=60.0, trust_env=False).json()["runs"]
    assert len(runs) >= len(STAGES)
    token = {"Authorization": f"Bearer {stack.secrets.value('ray-token')}"}
    assert stack.get("ray", "/api/jobs/").status_code in (401, 403)
    jobs = stack.get("ray", "/api/jobs/", headers=token).json()
    submitted = {job["submission_id"].rpartition("-")[0] for job in jobs if job["submission_id"]}
    assert submitted == {stage for stage, spec in STAGES.items() if spec.ray}


def _nothing_secret(stack: Stack) -> None:
    """No secret is in a log, a record, an argument, the profile, the bucket, or what MLflow and Ray tell."""
    files = [path for path in stack.secrets.folder.rglob("*") if path.is_file() and path.name != "username"]
    secrets = {path.read_text().strip() for path in files}
    assert len(secrets) > 8 and all(path.stat().st_mode & 0o077 == 0 for path in files)
    places = [stack.folder / name for name in ("logs", "run", "runs", "objects", "stack.yaml", "prometheus", "ray")]
    found = [path for place in places for path in (place.rglob("*") if place.is_dir() else [place])]
    told = {str(path): path.read_bytes() for path in found if path.is_file() and not path.is_symlink()}
    assert len(told) > 100
    login = (ADMIN, stack.secrets.value("mlflow-admin"))
    search = {"experiment_ids": ["0", "1", "2"], "max_results": 100}
    url = stack.address("mlflow") + "/api/2.0/mlflow/runs/search"
    told["MLflow"] = httpx.post(url, json=search, auth=login, timeout=60.0, trust_env=False).content
    token = {"Authorization": f"Bearer {stack.secrets.value('ray-token')}"}
    told["Ray"] = stack.get("ray", "/api/jobs/", headers=token).content
    for process in _of(stack.folder):
        told[f"arguments of {process.pid}"] = " ".join(process.cmdline()).encode()
    leaks = [where for where, content in told.items() for secret in secrets if secret.encode() in content]
    assert not leaks


def _nothing_is_heard_elsewhere(stack: Stack) -> None:
    """Every socket that takes connections is on loopback."""
    records = [json.loads(record.read_text()) for record in (stack.folder / "run").glob("*.json")]
    heard = []
    for process in (found for record in records for found in tree(record["pid"])):
        with contextlib.suppress(psutil.Error):
            heard += [found.laddr for found in process.net_connections() if found.status == psutil.CONN_LISTEN]
    ports = ports_of(stack.folder)
    assert set(ports.values()) <= {address.port for address in heard}
    assert {address.ip.removeprefix("::ffff:") for address in heard} == {"127.0.0.1"}


def _of(folder: Path) -> list[psutil.Process]:
    """Processes that have the folder in their arguments, or work in it."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and (
                str(folder) in " ".join(process.cmdline()) or process.cwd().startswith(str(folder))
            ):
                found.append(process)
        except psutil.Error:
            continue
    return found


def _value(stack: Stack, query: str) -> float:
    """Of a query to Prometheus; 0 while it has no answer."""
    result = stack.get("prometheus", "/api/v1/query", params={"query": query}).json()["data"]["result"]
    return float(result[0]["value"][1]) if result else 0.0


def _until(met: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not met():
        assert time.monotonic() < deadline, f"waited {PATIENCE:.0f} s for {what}"
        time.sleep(0.5)


def _run(*words: str) -> str:
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_profile_names_secrets_by_file_only(stack: Stack) -> None:
    tree = yaml.safe_load(stack.profile.read_text())
    assert set(tree["secrets"]) == {
        "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD", "RAY_AUTH_TOKEN", "SONARC_API_KEY",
    }  # fmt: skip
    environment = read_server_profile(stack.profile).environment(stack.folder)
    assert environment["RAY_AUTH_TOKEN"] == stack.secrets.value("ray-token")
