"""A component's container is asked for its log and exit code before it is removed; the engine is a double here, and a
real one in `tests/infra/test_containers.py`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from docker.errors import APIError
from kfp.local import docker_task_handler

from pipelines.component_container import run_docker_container

kfps_own = docker_task_handler.run_docker_container


@dataclass
class _Container:
    """One that has ended before anybody asks."""

    code: int = 0
    lines: tuple[bytes, ...] = (b"begun\n", b"\xff done\n")
    broken: bool = False
    there: bool = True

    def logs(self, **_: Any) -> Iterator[bytes]:
        assert self.there
        yield from self.lines
        if self.broken:
            raise APIError("500 Server Error")

    def wait(self) -> dict[str, int]:
        assert self.there
        return {"StatusCode": self.code}

    def remove(self, *, force: bool) -> None:
        assert force
        self.there = False


@dataclass
class _Client:
    container: _Container
    asked: dict[str, Any] = field(default_factory=dict)

    @property
    def containers(self) -> Any:
        return self

    def run(self, **asked: Any) -> _Container:
        self.asked = asked
        return self.container


@pytest.mark.parametrize("code", [0, 3])
def test_its_exit_code_is_its_own_and_it_is_gone(code: int, capsys: pytest.CaptureFixture[str]) -> None:
    client: Any = _Client(_Container(code))
    assert run_docker_container(client, "image@sha256:0", ["sonarc"], {"/a": {"bind": "/a"}}, read_only=True) == code
    assert not client.container.there and "auto_remove" not in client.asked and client.asked["read_only"]
    assert capsys.readouterr().out == "begun\n\ufffd done\n"


@pytest.mark.parametrize("ended", [APIError, KeyboardInterrupt, SystemExit])
def test_it_is_gone_when_the_run_is(ended: type[BaseException], monkeypatch: pytest.MonkeyPatch) -> None:
    client: Any = _Client(_Container(broken=ended is APIError))
    if ended is not APIError:

        def stopped(*_: Any, **__: Any) -> Iterator[bytes]:
            raise ended

        monkeypatch.setattr(_Container, "logs", stopped)
    with pytest.raises(ended):
        run_docker_container(client, "image@sha256:0", ["sonarc"], {})
    assert not client.container.there


def test_kfp_calls_it_as_it_calls_its_own() -> None:
    """If this fails, kfp has changed: read its function, and ours again."""
    assert list(inspect.signature(run_docker_container).parameters) == list(inspect.signature(kfps_own).parameters)
    source = inspect.getsource(docker_task_handler.DockerTaskHandler.run)
    assert "run_docker_container(\n" in source and source.count("return_code = run_docker_container") == 2
