"""A head that does not come up at once: what is tried again, and what is not."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import httpx
import pytest

from pipelines.local_ray import ATTEMPTS, brought_up, local_ray, wait_until_up
from sonarc.contracts.errors import StageError
from tests.loopback import serving


def failing(times: int, ended: list[int]) -> Callable[[], AbstractContextManager[str]]:
    """A start that fails so many times; `ended` gets the number of each try that has been cleared away."""
    begun: list[int] = []

    @contextmanager
    def start() -> Iterator[str]:
        begun.append(len(begun) + 1)
        try:
            if len(begun) <= times:
                raise StageError(f"Try {len(begun)} failed.", "")
            yield f"try {len(begun)}"
        finally:
            ended.append(begun[-1])

    return start


def test_a_head_that_did_not_come_up_is_cleared_away_and_tried_again() -> None:
    ended: list[int] = []
    with brought_up(failing(ATTEMPTS - 1, ended)) as found:
        assert found == f"try {ATTEMPTS}"
        assert ended == list(range(1, ATTEMPTS))
    assert ended == list(range(1, ATTEMPTS + 1))


def test_the_last_try_says_why() -> None:
    with pytest.raises(StageError, match=f"Try {ATTEMPTS} failed"), brought_up(failing(ATTEMPTS, [])):
        pass


def test_an_error_of_the_run_is_no_reason_to_try_again() -> None:
    ended: list[int] = []
    with pytest.raises(StageError, match="the run's own"), brought_up(failing(0, ended)):
        raise StageError("the run's own", "")
    assert ended == [1]


def test_a_head_is_up_once_a_node_has_joined_it(tmp_path: Path) -> None:
    asked: list[str] = []

    class Head(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            joined = [{"raylet": {"state": "ALIVE"}}] if len(asked) > 2 else [{"raylet": {"state": "DEAD"}}]
            body = json.dumps({"data": {"summary": joined}}).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with serving(Head) as port:
        wait_until_up(f"http://127.0.0.1:{port}", "token", lambda: None, tmp_path / "log")
    assert len(asked) == 3


def test_a_head_that_has_ended_is_not_waited_for(tmp_path: Path) -> None:
    def ended() -> None:
        raise StageError("The local Ray ended at once with code 1.", "")

    with pytest.raises(StageError, match="ended at once"):
        wait_until_up("http://127.0.0.1:9", "token", ended, tmp_path / "log")


def test_a_ray_that_has_the_usual_ports_is_no_hindrance(tmp_path: Path) -> None:
    """One of somebody else's has Ray's default port for its clients."""
    with socket.socket() as other:
        with contextlib.suppress(OSError):  # taken already, which will do as well
            other.bind(("127.0.0.1", 10_001))
            other.listen()
        with local_ray(1, tmp_path / "ray.log") as ray:
            time.sleep(3)  # a head whose part has ended notices within a second
            token = {"Authorization": f"Bearer {ray.env['RAY_AUTH_TOKEN']}"}
            assert httpx.get(f"{ray.address}/api/version", headers=token).status_code == 200
