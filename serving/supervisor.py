"""The server's own process: a private Ray on loopback, the application on it, and a watch over what to serve.

    python -m serving.supervisor --state runs/serve.json

Started by `serving.control.deploy`, which says what to serve in `serve.desired.json` beside the state
file. It writes the state file when ready, swaps the model when the desired package changes, and ends
everything it started on SIGTERM.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
from datetime import UTC, datetime
from pathlib import Path

import httpx
import psutil

from serving.follow import Follower
from serving.state import (
    MARKER,
    Desired,
    ServeState,
    describe,
    own_processes,
    read_desired,
    write_state,
)
from sonarc.contracts import log as logs
from sonarc.contracts.errors import ServingError, SonarcError
from sonarc.contracts.package import read_package

log = logging.getLogger("serving.supervisor")

POLL_SECONDS = 0.25
RAY_ATTEMPTS = 3
HEALTH_SECONDS = 5.0
HEALTH_FAILURES = 12
LONGEST_FOLDER = 60
"""Ray puts sockets below its folder, and a socket's path may have 107 bytes."""


def free_port(host: str, wanted: int) -> int:
    """`wanted` where nobody listens there, else the next port that is free.

    Raises:
        ServingError: none of the hundred after it is.
    """
    for port in range(wanted, min(wanted + 100, 65_536)):
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
        if port != wanted:
            log.warning("Port %d is taken: serving on port %d instead.", wanted, port)
        return port
    raise ServingError(f"No free port from {wanted} on at {host}.", "Set serve.port to a free one.")


def _check(desired: Desired) -> None:
    """Refuse what is no whole package, or not the one that was asked for, before anything is loaded or started."""
    for served in (desired.served, desired.candidate):
        if served is None:
            continue
        found = read_package(served.package_uri).sha256()
        if found != served.package_sha256:
            raise ServingError(
                f"The package {served.package_uri} has the hash {found[:16]}, not {served.package_sha256[:16]}.",
                "Register it again.",
            )


class Supervisor:
    """One server. `run` returns when it is told to stop, and leaves no process behind."""

    def __init__(self, state_dir: Path, desired: Desired, server_id: str) -> None:
        self.state_dir, self.desired, self.id = state_dir, desired, server_id
        self.stop = threading.Event()
        self.up = False
        self.folder = Path(tempfile.mkdtemp(prefix="sonarc-"))
        self.started = datetime.now(UTC).isoformat(timespec="seconds")
        if len(str(self.folder)) > LONGEST_FOLDER:
            raise ServingError(
                f"The temporary folder {self.folder} has a longer path than sockets allow.",
                "Set TMPDIR to a short path.",
            )

    def run(self) -> None:
        """Serve until told to stop."""
        try:
            _check(self.desired)
            self._listen()
            self._start_ray()
            self._listen()  # again, as Ray puts its own handlers in place
            port = free_port(self.desired.config.host, self.desired.config.port)
            self._start_http(port)
            self._serve(self.desired)
            self.up = True
            self._record(self.desired)
            log.info("ready at %s", self.address)
            self._follow()
            self._watch()
        finally:
            self._end()

    @property
    def address(self) -> str:
        """Base of every URL."""
        host = f"[{self.desired.config.host}]" if ":" in self.desired.config.host else self.desired.config.host
        return f"http://{host}:{self.port}"

    def _listen(self) -> None:
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, lambda *_: self.stop.set())

    def _start_ray(self) -> None:
        """A private Ray; started again where a busy machine keeps it past Ray's own fixed 30 seconds.

        Raises:
            ServingError: it did not start at all.
        """
        import ray

        for attempt in range(1, RAY_ATTEMPTS + 1):
            try:
                ray.init(
                    address="local",
                    num_cpus=self.desired.config.threads * self.desired.config.replicas + 2,
                    include_dashboard=False,
                    object_store_memory=128 * 1024 * 1024,
                    _temp_dir=str(self.folder),
                    _node_ip_address="127.0.0.1",
                    log_to_driver=True,  # the replicas' own errors, in the one log people look at
                    logging_level=logging.WARNING,
                )
                return
            except Exception as error:
                log.warning("Ray did not start (attempt %d of %d): %s", attempt, RAY_ATTEMPTS, error)
                ray.shutdown()
                for process in psutil.Process().children(recursive=True):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.kill()
                if attempt == RAY_ATTEMPTS:
                    raise ServingError(
                        f"Ray did not start: {error}", "Free some CPU or memory and try again."
                    ) from error

    def _start_http(self, port: int) -> None:
        from ray import serve
        from ray.serve.config import HTTPOptions

        self.port = port
        serve.start(proxy_location="HeadOnly", http_options=HTTPOptions(host=self.desired.config.host, port=port))

    def _serve(self, desired: Desired) -> None:
        """Deploy, or swap to, a package; returns when it answers.

        Raises:
            SonarcError: no whole package, or not the one that was asked for.
            ServingError: Serve could not load it.
        """
        from ray import serve

        from serving.app import APP, application

        _check(desired)
        try:
            serve.run(application(desired.config, desired.lineup), name=APP, route_prefix="/", blocking=False)
        except RuntimeError as error:
            raise ServingError(f"The package could not be loaded: {error}", "The server's log says more.") from error

    def _record(self, desired: Desired, *, refused: str = "", problem: str = "") -> None:
        me = psutil.Process()
        ours = {process.pid: process for process in [me, *me.children(recursive=True), *own_processes(self.id)]}
        write_state(
            self.state_dir,
            ServeState(
                id=self.id,
                pid=me.pid,
                pgid=os.getpgid(0),
                processes=describe([ours[pid] for pid in sorted(ours)]),
                address=self.address,
                served=desired.served,
                candidate=desired.candidate,
                config=desired.config,
                folder=str(self.folder),
                started=self.started,
                refused=refused,
                problem=problem,
            ),
        )

    def _follow(self) -> None:
        source, every_s = self.desired.source, self.desired.config.follow_s
        if source is not None and every_s > 0:
            Follower(self.state_dir, source, every_s, self.stop).start()

    def _watch(self) -> None:
        failures, since_health = 0, 0.0
        refused = ""
        while not self.stop.wait(POLL_SECONDS):
            wanted = read_desired(self.state_dir)
            if wanted and wanted.attempt not in (self.desired.attempt, refused):
                refused = self._swap(wanted)
            since_health += POLL_SECONDS
            if since_health >= HEALTH_SECONDS:
                since_health = 0.0
                failures = 0 if self._healthy() else failures + 1
                if failures >= HEALTH_FAILURES:
                    raise ServingError("The endpoint no longer answers.", "Deploy again; the log says more.")

    def _swap(self, wanted: Desired) -> str:
        """Serve another package; the present one stays where that fails.

        Returns:
            The attempt that was refused, or ''.
        """
        log.info("swapping to package %s", wanted.served.package_sha256[:16])
        try:
            self._serve(wanted)
        except SonarcError as error:
            log.error("%s", error)
            self._serve(self.desired)
            self._record(self.desired, refused=wanted.attempt, problem=str(error))
            return wanted.attempt
        self.desired = wanted
        self._record(wanted)
        log.info("serving package %s", wanted.served.package_sha256[:16])
        return ""

    def _healthy(self) -> bool:
        try:
            return httpx.get(f"{self.address}/healthz", timeout=HEALTH_SECONDS, trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    def _end(self) -> None:
        log.info("stopping")
        import ray
        from ray import serve

        from serving.app import APP

        try:
            if ray.is_initialized():
                # Shutting down at once would take the proxy, and with it the connections of what is under way.
                if self.up:
                    serve.delete(APP)
                serve.shutdown()
        except Exception:
            log.exception("Serve did not end in order")
        finally:
            ray.shutdown()
            shutil.rmtree(self.folder, ignore_errors=True)


def main() -> None:
    """Run one server; exits with the error's own code."""
    parser = argparse.ArgumentParser(prog="python -m serving.supervisor", description=__doc__)
    parser.add_argument("--state", required=True, type=Path, help="the state file; what to serve is beside it")
    state_dir = parser.parse_args().state.absolute().parent
    logs.setup()
    try:
        desired = read_desired(state_dir)
        if desired is None:
            raise ServingError(f"Nothing in {state_dir} says what to serve.", "Start it with `sonarc serve`.")
        Supervisor(state_dir, desired, os.environ.get(MARKER, "")).run()
    except SonarcError as error:
        log.error("%s", error)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
