"""The application as KubeRay runs it: before anything is promoted, after, and with a package that cannot be loaded."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from ray import serve
from ray.exceptions import RayTaskError
from tiny_package import make_package

from serving import cluster
from serving.cluster import ClusterSettings, FollowingCoordinator, FollowingGenerator, build
from serving.state import Lineup, ServedModel, Source
from sonarc.contracts import store
from sonarc.contracts.config import ServeConfig
from sonarc.contracts.errors import CheckpointError, ServingError, StoreError
from sonarc.contracts.processes import end_tree, free_port, private_env
from sonarc.tracking.registry import Registry

ROOT = Path(__file__).parents[2]
PATIENCE = 300.0


def test_where_the_registry_is_must_be_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.delenv("SONARC_STORE", raising=False)
    with pytest.raises(ServingError, match="SONARC_STORE"):
        build({})


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="replica"):
        ClusterSettings.model_validate({"serve": {"replica": 2}})


class Replicas:
    """A handle of generators that all hold what they are told, unless `problem` is set."""

    def __init__(self) -> None:
        self.held: list[str] = []
        self.problem: BaseException | None = None

    def options(self, **_: object) -> Replicas:
        return self

    def broadcast(self, method: str, lineup: dict[str, Any]) -> Replicas:
        assert method == "hold"
        self.held.append(lineup["champion"]["version"])
        return self

    async def results_async(self, **_: object) -> list[BaseException | None]:
        problem, self.problem = self.problem, None
        return [None, problem]


class Said:
    """The registry, and a coordinator that asks it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.replicas, self.version = Replicas(), ""
        monkeypatch.setattr(cluster, "resolve", lambda source: self._lineup())
        made: Any = FollowingCoordinator.func_or_class
        self._coordinator = made(self.replicas, ServeConfig(follow_s=1).model_dump(mode="json"))

    def _lineup(self) -> Lineup | None:
        served = {"model": "sonarc", "version": self.version, "package_uri": "u", "package_sha256": self.version}
        return Lineup(champion=ServedModel.model_validate(served)) if self.version else None

    def asked(self, version: str, problem: BaseException | None = None) -> list[str]:
        """What replicas are told to hold when the champion is `version` and one of them has a problem."""
        self.version, self.replicas.problem, self.replicas.held = version, problem, []
        source = Source(tracking="t", store="s", model="sonarc", alias="champion", candidate_alias="candidate")
        asyncio.run(self._coordinator._ask(source))
        return self.replicas.held


def test_a_package_is_tried_again_after_the_store_was_away_but_not_a_damaged_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = Said(monkeypatch)
    assert said.asked("") == []
    assert said.asked("1", CheckpointError("Damaged.")) == ["1"]
    assert said.asked("1") == ["1"]  # nothing else is served: it is tried again
    assert said.asked("2", StoreError("Away.")) == ["2", "1"]
    assert said.asked("2") == ["2"]
    assert said.asked("3", CheckpointError("Damaged.")) == ["3", "2"]
    assert said.asked("3") == ["2"]
    assert said.asked("2") == ["2"]
    assert said.asked("3") == ["3"]  # mended, and promoted again


def test_what_ray_wraps_is_told_apart_too(monkeypatch: pytest.MonkeyPatch) -> None:
    said = Said(monkeypatch)
    said.asked("1")
    cause = StoreError("Away.", "Try again.")
    wrapped = RayTaskError("hold", "traceback", cause)
    assert said.asked("2", wrapped) == ["2", "1"]
    assert said.asked("2", wrapped.as_instanceof_cause()) == ["2", "1"]
    assert said.asked("2") == ["2"]


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(f"sqlite:///{tmp_path}/mlflow.db", (tmp_path / "store").as_uri())


@pytest.fixture
def endpoint(tmp_path: Path, registry: Registry) -> Iterator[str]:
    """Address of an application that follows the registry every second."""
    port = free_port()
    environment = os.environ | private_env() | {
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db",
        "SONARC_STORE": (tmp_path / "store").as_uri(),
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serving.guard.in_proxy",
        "SONARC_SERVE_MAX_BODY": "1000000",
        "TMPDIR": "/tmp",
    }  # fmt: skip
    settings = json.dumps({"serve": {"threads": 1, "replicas": 2, "follow_s": 1}})
    with (tmp_path / "endpoint.log").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "tests" / "cluster_endpoint.py"), str(port), settings],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=output, env=environment, start_new_session=True,
        )  # fmt: skip
    try:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, b"")
        assert any(line.strip() == b"up" for line in lines), (tmp_path / "endpoint.log").read_text()[-4000:]
        yield f"http://127.0.0.1:{port}"
        process.communicate(timeout=60)
    finally:
        end_tree(process.pid)


def _until(said: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not said():
        assert time.monotonic() < deadline
        time.sleep(0.5)


def _ready(address: str) -> str:
    """Hash of the package the endpoint answers with; empty: it has none."""
    answer = httpx.get(f"{address}/readyz", timeout=30.0, trust_env=False)
    return str(answer.json()["package_sha256"]) if answer.status_code == 200 else ""


def _served_by(address: str) -> set[str]:
    """Hashes of the packages that made some sounds, on whichever replica."""
    body = {"prompt": "a kick drum", "seconds": 0.2, "steps": 1}
    answers = [
        httpx.post(f"{address}/v1/audio/generations", json=body, timeout=60.0, trust_env=False) for _ in range(8)
    ]
    assert {answer.status_code for answer in answers} == {200}
    return {answer.headers["x-sonarc-package"] for answer in answers}


@pytest.mark.slow
def test_a_replica_that_refuses_a_package_leaves_all_with_the_present_one(
    tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In Serve's own mode for tests: the replicas in this process, no Ray."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("SONARC_STORE", (tmp_path / "store").as_uri())
    settings = ServeConfig(threads=1, follow_s=1).model_dump(mode="json")
    source = Source(
        tracking=f"sqlite:///{tmp_path}/mlflow.db",
        store=(tmp_path / "store").as_uri(),
        model="sonarc",
        alias="champion",
        candidate_alias="candidate",
    ).model_dump(mode="json")
    generators = FollowingGenerator.options(user_config=source).bind(settings)
    application = FollowingCoordinator.options(user_config=source).bind(generators, settings)
    handle = serve.run(application, name="following", _local_testing_mode=True)

    def told() -> str:
        """The version that the metrics name."""
        found = re.search(r'sonarc_model_info{.*version="(\d+)"', handle.call.remote("metrics").result())
        return found[1] if found else ""

    assert told() == ""
    one, two, broken = _registered(tmp_path, registry)
    for version in (one, two):
        registry.move("sonarc", "champion", version.version, "promoted")
        _until(lambda wanted=version.version: told() == wanted)  # type: ignore[misc]
    registry.move("sonarc", "champion", broken.version, "promoted")
    time.sleep(3)
    assert told() == two.version
    registry.move("sonarc", "champion", one.version, "rolled back")
    _until(lambda: told() == one.version)


def _registered(folder: Path, registry: Registry) -> list[ServedModel]:
    """Three versions; the last one's weights are damaged after it was registered."""
    packages = [make_package(folder / "store" / "packages", seed) for seed in (0, 1, 2)]
    made = [ServedModel.model_validate(registry.register("sonarc", uri).model_dump()) for uri, _ in packages]
    damaged = made[2].package_uri
    weights = next(name for name in store.list_files(damaged) if name.endswith(".safetensors"))
    store.write_bytes(store.join(damaged, weights), b"no weights")
    return made


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_endpoint_follows_the_registry_by_itself(tmp_path: Path, registry: Registry, endpoint: str) -> None:
    assert _ready(endpoint) == ""
    one, two, broken = _registered(tmp_path, registry)
    for version in (one, two):
        registry.move("sonarc", "champion", version.version, "promoted")
        _until(lambda wanted=version.package_sha256: _ready(endpoint) == wanted)  # type: ignore[misc]
        assert _served_by(endpoint) == {version.package_sha256}

    registry.move("sonarc", "champion", broken.version, "promoted")
    log = tmp_path / "endpoint.log"
    _until(lambda: "is refused" in log.read_text("utf-8", "replace"))
    assert _served_by(endpoint) == {two.package_sha256}

    registry.move("sonarc", "champion", one.version, "rolled back")
    _until(lambda: _ready(endpoint) == one.package_sha256)
    assert _served_by(endpoint) == {one.package_sha256}
