"""A local Ray head of our own: token-authenticated, on loopback, ended with everything it started."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sonarc.contracts.errors import StageError
from sonarc.contracts.processes import end_tree, free_port, private_env

START_SECONDS = 180.0
ATTEMPTS = 3
OBJECT_STORE_BYTES = 2 << 30


@dataclass(frozen=True)
class LocalRay:
    """A running head.

    Attributes:
        address: of the Ray jobs API, `http://127.0.0.1:port`.
        env: what a client's environment needs to be let in.
    """

    address: str
    env: dict[str, str]


@contextlib.contextmanager
def local_ray(logical_cpus: int, log: Path) -> Iterator[LocalRay]:
    """Start a head for the duration of a `with` block.

    Args:
        logical_cpus: CPUs it declares; more than there are, so that stages never wait for each other.
        log: file that takes the head's output.

    Raises:
        StageError: it did not come up; the message names the log.
    """
    env = private_env()
    with brought_up(lambda: _head(env, logical_cpus, log)) as address:
        yield LocalRay(address, env)


@contextlib.contextmanager
def brought_up(start: Callable[[], contextlib.AbstractContextManager[str]]) -> Iterator[str]:
    """A head by the first of ATTEMPTS tries that brings one up; gives what the try gives.

    Ray gives its own parts so many seconds to come up; on a busy machine that can be too little.

    Raises:
        StageError: the last try's.
    """
    with contextlib.ExitStack() as running:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                found = running.enter_context(start())
                break
            except StageError:
                if attempt == ATTEMPTS:
                    raise
        yield found


@contextlib.contextmanager
def _head(env: dict[str, str], logical_cpus: int, log: Path) -> Iterator[str]:
    """One try at a head; gives the address of its jobs API."""
    # Ray keeps unix sockets below its temporary folder, whose paths the kernel limits to 107 bytes.
    temporary = Path(tempfile.mkdtemp(prefix="sonarc-ray-"))
    dashboard = free_port()
    command = head_command(sys.executable, dashboard, logical_cpus, temporary)
    with log.open("ab") as output:
        head = subprocess.Popen(
            command,
            env=os.environ | env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def check() -> None:
        if head.poll() is not None:
            raise StageError(f"The local Ray ended at once with code {head.returncode}.", f"Its log: {log}")

    try:
        address = f"http://127.0.0.1:{dashboard}"
        wait_until_up(address, env["RAY_AUTH_TOKEN"], check, log)
        yield address
    finally:
        end_tree(head.pid)
        head.wait()
        shutil.rmtree(temporary, ignore_errors=True)


def head_command(
    python: str,
    dashboard: int,
    logical_cpus: int,
    temporary: Path,
    *,
    port: int = 0,
    object_store_bytes: int = OBJECT_STORE_BYTES,
) -> list[str]:
    """What starts a head on loopback in the foreground; `port`, where other nodes join it, is any free one if 0."""
    return [
        *_node(python, "ray.scripts.scripts", logical_cpus, temporary, object_store_bytes),
        "--head",
        "--port", str(port or free_port()),
        "--include-dashboard", "true",
        "--dashboard-host", "127.0.0.1",
        "--dashboard-port", str(dashboard),
        # Nobody uses it, but it cannot be left out, and where another Ray has its default port this one would end.
        "--ray-client-server-port", str(free_port()),
    ]  # fmt: skip


def node_command(
    python: str, head: str, logical_cpus: int, temporary: Path, *, object_store_bytes: int = OBJECT_STORE_BYTES
) -> list[str]:
    """What starts another node on loopback in the foreground; `head` is where the head is joined, `host:port`.

    A node's folder tells a driver which node it is on: each has its own, as on machines of their own.
    """
    command = _node(python, "pipelines.loopback_node", logical_cpus, temporary, object_store_bytes)
    return [*command, "--address", head]


def _node(python: str, module: str, logical_cpus: int, temporary: Path, object_store_bytes: int) -> list[str]:
    return [
        python, "-m", module, "start", "--block",
        "--node-ip-address", "127.0.0.1",
        "--dashboard-agent-listen-port", str(free_port()),
        "--num-cpus", str(logical_cpus),
        "--object-store-memory", str(object_store_bytes),
        "--temp-dir", str(temporary),
        "--disable-usage-stats",
    ]  # fmt: skip


def wait_until_up(address: str, token: str, check: Callable[[], None], log: Path) -> None:
    """Return once a head's jobs API answers and a node has joined it: jobs that come before have nobody to start them.

    Args:
        address: of the jobs API.
        token: that lets us in.
        check: raises where the head has ended.
        log: of the head, for messages.

    Raises:
        StageError: it did not come up in time.
    """
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        check()
        if alive_nodes(address, token):
            return
        time.sleep(0.2)
    raise StageError(f"The local Ray did not come up within {START_SECONDS:.0f} s.", f"Its log: {log}")


def answers(address: str, token: str) -> bool:
    """Whether a jobs API answers, and lets us in."""
    request = urllib.request.Request(f"{address}/api/jobs/", headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, timeout=2):
            return True
    except (urllib.error.URLError, OSError):
        return False


def alive_nodes(address: str, token: str) -> int:
    """How many nodes the head at `address`, of its jobs API, knows to be alive; 0 while it does not answer."""
    request = urllib.request.Request(f"{address}/nodes?view=summary", headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            nodes = json.load(answer)["data"]["summary"]
    except (urllib.error.URLError, OSError, ValueError, KeyError):
        return 0
    return sum(found["raylet"].get("state") == "ALIVE" for found in nodes)


@contextlib.contextmanager
def standing_ray(address: str, run: str) -> Iterator[LocalRay]:
    """A Ray that runs already, with the token of this environment; jobs of a run that fails or is cut off are ended.

    Args:
        address: of its jobs API.
        run: by which the jobs are known.

    Raises:
        StageError: it does not answer, or refuses the token.
    """
    if not answers(address, os.environ.get("RAY_AUTH_TOKEN", "")):
        raise StageError(
            f"The Ray at {address} does not answer, or refuses the token.",
            "Look whether it runs; RAY_AUTH_TOKEN has to be its token.",
        )
    try:
        yield LocalRay(address, {})
    except BaseException:
        from components.launch import cleanup

        with contextlib.suppress(Exception):  # the failure that brought us here is what counts
            cleanup(run, ray_address=address)
        raise
