"""Start, swap, look at and stop the supervised server of a folder. No ray here.

state = deploy("…/packages/0123…", sha256, config.serve, Path("runs"))
status(Path("runs"))
stop(Path("runs"))
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import subprocess
import sys
import time
import uuid
from pathlib import Path

import httpx
import psutil

from serving.guard import MAX_BODY
from serving.keys import keys_path
from serving.state import (
    LOG,
    MARKER,
    STANDING,
    STARTING,
    STATE,
    Desired,
    ServedModel,
    ServeState,
    Source,
    alive,
    only_one,
    own_processes,
    read_standing,
    read_state,
    stands,
    write_desired,
)
from sonarc.contracts.config import ServeConfig
from sonarc.contracts.errors import ServingError
from sonarc.contracts.processes import PATIENT

log = logging.getLogger(__name__)

READY_SECONDS = 900.0
"""Many, for a busy machine; a server that ends, or refuses the package, is noticed at once."""
END_SECONDS = 30.0
"""Beyond the deadline of what is under way: what a server may take to end."""
POLL_SECONDS = 0.2
LOG_TAIL_LINES = 15


def deploy(
    package_uri: str,
    package_sha256: str,
    config: ServeConfig,
    state_dir: Path,
    *,
    model: str = "sonarc",
    version: str = "0",
    candidate: ServedModel | None = None,
    source: Source | None = None,
) -> ServeState:
    """Have a package served: keep the live server, swap its model, or start one, and wait until it answers.

    Args:
        package_uri: the package's folder in the store.
        package_sha256: its hash.
        config: how to serve; a live server with other settings is started anew.
        state_dir: folder of `serve.json`, `serve.desired.json` and `serve.log`.
        model: the registered model's name, told to clients.
        version: its version, told to clients.
        candidate: a second package, for the canary and shadow traffic that `config` gives it.
        source: the registry to follow, where `config.follow_s` says so.

    Raises:
        ServingError: the server did not come up, or refused the package; with the end of its log.
    """
    state_dir.mkdir(parents=True, exist_ok=True)
    served = ServedModel(package_uri=package_uri, package_sha256=package_sha256, model=model, version=version)
    keys = keys_path(config.keys_file)
    config = config.model_copy(update={"keys_file": str(keys or "")})
    with only_one(state_dir):
        live = status(state_dir)
        if live is not None and live.config != config:
            log.info("The server's settings have changed: starting it anew.")
            end(state_dir)
            live = None
        desired = Desired(attempt=uuid.uuid4().hex, served=served, candidate=candidate, source=source, config=config)
        same = live is not None and (live.served, live.candidate) == (served, candidate)
        if live is not None and same and _ready(live) == package_sha256:
            return live
        write_desired(state_dir, desired)
        if live is not None:
            return _swap(state_dir, live, desired)
        return _started_for_us(state_dir, desired) if stands(state_dir) else start(state_dir, desired)


def status(state_dir: Path) -> ServeState | None:
    """The live server of a folder, or None."""
    state = read_state(state_dir)
    return state if state is not None and alive(state) else None


def starting(state_dir: Path) -> bool:
    """Whether a server was being started when whoever started it was cut off; `stop` ends it."""
    return (state_dir / STARTING).exists()


def stop(state_dir: Path) -> int:
    """End the server of a folder: its supervisor and every process that descends from it, and nothing else.

    A server whose supervisor has died is cleared away too.

    Returns:
        How many processes have ended.

    Raises:
        ServingError: a process would not end.
    """
    if not state_dir.is_dir():
        return 0
    with only_one(state_dir):
        ended = end(state_dir)
        (state_dir / STANDING).unlink(missing_ok=True)
        return ended


def withdraw(state_dir: Path) -> int:
    """End the server of a folder as `stop` does; who stands by to start one stays.

    Raises:
        ServingError: a process would not end.
    """
    with only_one(state_dir):
        return end(state_dir)


def start(state_dir: Path, desired: Desired) -> ServeState:
    """Start a server and wait until it answers. `deploy` does this, or has it done by who stands by.

    Raises:
        ServingError: it did not come up; with the end of its log.
    """
    end(state_dir)  # what a server that died may have left
    server_id = uuid.uuid4().hex
    # The server's Ray is its own: another cluster's address or token must not reach it.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment[MARKER] = server_id
    environment |= PATIENT | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on every system: bind to loopback, not to the host's address
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",  # Ray's default makes its workers wait for every other process of the machine
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serving.guard.in_proxy",
        MAX_BODY: str(desired.config.max_upload_bytes),
    }
    # Whoever waits below may be killed: until the server has written its state, this is how it is found.
    (state_dir / STARTING).write_text(server_id, encoding="utf-8")
    environment["SPT_NOENV"] = "1"  # Ray renames its processes: keep that from overwriting their environment
    with (state_dir / LOG).open("wb") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "serving.supervisor", "--state", str(state_dir / STATE)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        return _wait(state_dir, child, desired.served, server_id)
    except BaseException:
        _end_processes(server_id)
        (state_dir / STATE).unlink(missing_ok=True)
        raise
    finally:
        (state_dir / STARTING).unlink(missing_ok=True)


def _wait(state_dir: Path, child: subprocess.Popen[bytes], served: ServedModel, server_id: str) -> ServeState:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        code = child.poll()
        if code is not None:
            raise ServingError(f"The server ended with code {code} before it was ready.", _tail(state_dir))
        state = read_state(state_dir)
        if state is not None and state.id == server_id and _ready(state) == served.package_sha256:
            return state
        time.sleep(POLL_SECONDS)
    raise ServingError(f"The server was not ready after {READY_SECONDS:.0f} s.", _tail(state_dir))


def _started_for_us(state_dir: Path, desired: Desired) -> ServeState:
    """Wait until who stands by has started the desired server."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        state, record = status(state_dir), read_standing(state_dir)
        if state is not None and state.served == desired.served and _ready(state) == desired.served.package_sha256:
            return state
        if record is not None and record.refused == desired.attempt:
            raise ServingError(f"The server did not start: {record.problem}", f"Its log: {state_dir / LOG}")
        if not stands(state_dir):
            raise ServingError("Whoever stood by to start the server has ended.", "Deploy again.")
        time.sleep(POLL_SECONDS)
    raise ServingError(f"The server was not ready after {READY_SECONDS:.0f} s.", _tail(state_dir))


def _swap(state_dir: Path, live: ServeState, desired: Desired) -> ServeState:
    served = desired.served
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        state = status(state_dir)
        if state is None:
            raise ServingError("The server ended while its model was being swapped.", _tail(state_dir))
        if (state.served, state.candidate) == (served, desired.candidate) and _ready(state) == served.package_sha256:
            return state
        if state.refused == desired.attempt:
            raise ServingError(
                f"The server refused the package {served.package_sha256[:16]} and goes on with "
                f"{live.package_sha256[:16]}: {state.problem}",
                f"Its log: {state_dir / LOG}",
            )
        time.sleep(POLL_SECONDS)
    raise ServingError(f"The model was not swapped within {READY_SECONDS:.0f} s.", _tail(state_dir))


def _ready(state: ServeState) -> str | None:
    """Hash of the package the server answers with, or None."""
    try:
        answer = httpx.get(f"{state.address}/readyz", timeout=5.0, trust_env=False)
        return str(answer.json()["package_sha256"]) if answer.status_code == 200 else None
    except (httpx.HTTPError, ValueError, KeyError):
        return None


def end(state_dir: Path) -> int:
    """End the server of a folder, for who is the only one to; gives how many processes have ended.

    Raises:
        ServingError: a process would not end.
    """
    ended = 0
    if starting(state_dir):
        ended += _end_processes((state_dir / STARTING).read_text("utf-8").strip())
        (state_dir / STARTING).unlink(missing_ok=True)
    state = read_state(state_dir)
    if state is None:
        (state_dir / STATE).unlink(missing_ok=True)
        return ended
    supervisor = state.pid if alive(state) else None
    ended += _end_processes(state.id, supervisor, drain_s=state.config.timeout_s)
    shutil.rmtree(state.folder, ignore_errors=True)
    (state_dir / STATE).unlink(missing_ok=True)
    return ended


def _end_processes(server_id: str, supervisor: int | None = None, drain_s: float = 0.0) -> int:
    """Ask the supervisor to drain and end; then end whatever of its server is left."""
    ours = own_processes(server_id)
    asked = [process for process in ours if process.pid == supervisor]
    for process in asked:
        process.terminate()
    psutil.wait_procs(asked, timeout=drain_s + END_SECONDS)
    left = own_processes(server_id)
    for process in left:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    _, stubborn = psutil.wait_procs(left, timeout=10)
    if stubborn:
        raise ServingError(
            f"The processes {sorted(p.pid for p in stubborn)} of the server did not end.", "End them by hand."
        )
    return len(ours)


def _tail(state_dir: Path) -> str:
    try:
        lines = (state_dir / LOG).read_text("utf-8", "replace").splitlines()
    except OSError:
        return "It left no log."
    return "The end of its log:\n" + "\n".join(lines[-LOG_TAIL_LINES:])
