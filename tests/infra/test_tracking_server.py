"""MLflow as the cluster runs it: arguments, settings and accounts of the manifests, PostgreSQL, a bucket."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from planted_breaches import of
from postgres import postgres

from infra.check.render import INFRA, render
from sonarc.bench.s3_server import s3_server
from sonarc.contracts.errors import TrackingError
from sonarc.contracts.processes import end_tree, free_port
from sonarc.tracking.registry import Registry

PATIENCE = 300.0
ADMIN, PIPELINE, ENDPOINT = ("admin", "a" * 16), ("pipeline", "p" * 16), ("endpoint", "e" * 16)


@dataclass
class Tracking:
    """A running server: its address, what its container has in its environment, and the bucket's folder."""

    address: str
    environment: dict[str, str]
    bucket: Path

    def call(self, verb: str, path: str, account: tuple[str, str] | None, **options: Any) -> httpx.Response:
        """One call of its API."""
        url = f"{self.address}{path}"
        return httpx.request(verb, url, auth=account, timeout=60.0, trust_env=False, **options)

    def make_accounts(self, folder: Path) -> str:
        """The Job."""
        for username, password in (PIPELINE, ENDPOINT):
            (folder / username).mkdir(parents=True, exist_ok=True)
            (folder / username / "username").write_text(username)
            (folder / username / "password").write_text(password + "\n")
        credentials = {"MLFLOW_TRACKING_USERNAME": ADMIN[0], "MLFLOW_TRACKING_PASSWORD": ADMIN[1]}
        environment = self.environment | credentials | {"MLFLOW_TRACKING_URI": self.address}
        script = INFRA / "base" / "tracking" / "accounts.py"
        done = subprocess.run(
            [sys.executable, str(script), str(folder)], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tracking]:
    folder = tmp_path_factory.mktemp("tracking")
    container = _container("kind")
    with postgres() as database, s3_server(folder / "s3") as store:
        secrets = {"MLFLOW_USER": "mlflow", "MLFLOW_PASSWORD": "m" * 16, "TUNING_PASSWORD": "t" * 16}
        connection = {"PGHOST": "127.0.0.1", "PGPORT": str(database.port)}
        first = INFRA / "parts" / "postgres" / "init.sql"
        subprocess.run(
            ["psql", "-v", "ON_ERROR_STOP=1", "--no-psqlrc", "-U", "sonarc", "-d", "postgres", "-f", str(first)],
            env=os.environ | connection | secrets | {"PGPASSWORD": database.password}, check=True, capture_output=True,
        )  # fmt: skip
        settings = {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}
        settings["MLFLOW_AUTH_CONFIG_PATH"] = str(INFRA / "base" / "tracking" / "basic_auth.ini")
        environment = (
            {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
            | store.environment()
            | connection
            | settings
            | {
                "PGUSER": "mlflow",
                "PGPASSWORD": secrets["MLFLOW_PASSWORD"],
                "MLFLOW_ARTIFACTS_DESTINATION": "s3://sonarc/mlflow",
                "MLFLOW_AUTH_ADMIN_USERNAME": ADMIN[0],
                "MLFLOW_AUTH_ADMIN_PASSWORD": ADMIN[1],
                "MLFLOW_FLASK_SERVER_SECRET_KEY": "s" * 16,
                "MLFLOW_DISABLE_TELEMETRY": "true",
                "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            }
        )
        port = free_port()
        moved = {"--host=0.0.0.0": "--host=127.0.0.1", "--port=5000": f"--port={port}"}
        moves = _container("kind", "initContainers")["args"]
        subprocess.run(moves, env=environment, check=True, capture_output=True, cwd=folder)
        command = [moved.get(argument, argument) for argument in container["args"]]
        with (folder / "server.log").open("wb") as log:
            server = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, cwd=folder, start_new_session=True
            )
        try:
            found = Tracking(f"http://127.0.0.1:{port}", environment, store.folder / "sonarc")
            deadline = time.monotonic() + PATIENCE
            while not _answers(found):
                said = (folder / "server.log").read_text("utf-8", "replace")[-4000:]
                assert server.poll() is None and time.monotonic() < deadline, said
                time.sleep(0.5)
            yield found
        finally:
            end_tree(server.pid)


def _container(overlay: str, kind: str = "containers") -> dict[str, Any]:
    deployment = of(render(INFRA / "overlays" / overlay), "Deployment/sonarc-mlflow")
    found: dict[str, Any] = deployment["spec"]["template"]["spec"][kind][0]
    return found


def _answers(tracking: Tracking) -> bool:
    """As the kubelet asks."""
    probe = _container("kind")["readinessProbe"]["httpGet"]
    headers = {header["name"]: header["value"] for header in probe["httpHeaders"]}
    try:
        return tracking.call("GET", probe["path"], None, headers=headers).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.mark.slow
def test_strangers_and_strange_names_are_refused(tracking: Tracking) -> None:
    listing = "/api/2.0/mlflow/experiments/search?max_results=1"
    assert tracking.call("GET", listing, None).status_code == 401
    assert tracking.call("GET", listing, ("admin", "password1234")).status_code == 401
    assert tracking.call("GET", listing, ADMIN).status_code == 200
    assert tracking.call("GET", listing, ADMIN, headers={"Host": "evil.example.com"}).status_code == 403
    for host in ("sonarc-mlflow:5000", "sonarc-mlflow.sonarc.svc:5000"):
        assert tracking.call("GET", listing, ADMIN, headers={"Host": host}).status_code == 200


@pytest.mark.slow
def test_accounts_are_made_once_and_the_endpoint_only_reads(
    tracking: Tracking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tracking.make_accounts(tmp_path) == "endpoint: made\npipeline: made\n"
    assert tracking.make_accounts(tmp_path) == "endpoint: kept\npipeline: kept\n"
    models = "/api/2.0/mlflow/registered-models"
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", PIPELINE[0])
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PIPELINE[1])
    registry = Registry(tracking.address, tmp_path.as_uri())
    assert registry.resolve("sonarc", "champion") is None, "of what is not there the server says that it is forbidden"
    with pytest.raises(TrackingError, match="does not exist"):
        registry.version("sonarc", "1")
    assert tracking.call("POST", f"{models}/create", PIPELINE, json={"name": "sonarc"}).status_code == 200
    for account in (PIPELINE, ENDPOINT):
        assert tracking.call("GET", f"{models}/get?name=sonarc", account).status_code == 200
    alias = {"name": "sonarc", "alias": "champion", "version": "1"}
    assert tracking.call("POST", f"{models}/alias", ENDPOINT, json=alias).status_code == 403
    assert tracking.call("DELETE", f"{models}/delete", ENDPOINT, json={"name": "sonarc"}).status_code == 403


@pytest.mark.slow
def test_artifacts_go_to_the_bucket_through_the_server(tracking: Tracking) -> None:
    made = tracking.call("POST", "/api/2.0/mlflow/experiments/create", ADMIN, json={"name": "here"})
    root = tracking.call(
        "GET", f"/api/2.0/mlflow/experiments/get?experiment_id={made.json()['experiment_id']}", ADMIN
    ).json()["experiment"]["artifact_location"]
    assert root.startswith("mlflow-artifacts:")
    path = f"/api/2.0/mlflow-artifacts/artifacts/{made.json()['experiment_id']}/a.txt"
    assert tracking.call("PUT", path, ADMIN, content=b"kept").status_code == 200
    kept = list(tracking.bucket.rglob("a.txt"))
    assert [file.read_bytes() for file in kept] == [b"kept"]
    assert kept[0].relative_to(tracking.bucket).parts[0] == "mlflow"
