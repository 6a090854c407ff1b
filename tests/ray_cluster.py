"""A Ray cluster of processes to be killed, and trainings on it as processes of their own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from pipelines.local_ray import end_tree, free_port, private_env
from sonarc.contracts import store
from sonarc.contracts.progress import read_progress
from sonarc.contracts.result import StageRequest

PATIENCE = 180.0


@dataclass
class Cluster:
    """A head on loopback.

    Attributes:
        folder: of its logs and of the jobs'.
    """

    folder: Path
    address: str = ""
    env: dict[str, str] = field(default_factory=private_env)
    _head: subprocess.Popen[bytes] | None = None
    _temporary: str = ""

    def start(self) -> None:
        """Start the head; once it has been killed, another."""
        port = free_port()
        self._temporary = tempfile.mkdtemp(prefix="sonarc-ray-")
        command = [
            sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block",
            "--node-ip-address", "127.0.0.1", "--port", str(port), "--include-dashboard", "false",
            "--num-cpus", "4", "--object-store-memory", str(256 << 20), "--temp-dir", self._temporary,
            "--disable-usage-stats",
        ]  # fmt: skip
        with (self.folder / "head.log").open("ab") as log:
            self._head = subprocess.Popen(
                command,
                env=os.environ | self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.address = f"127.0.0.1:{port}"
        until(lambda: "Ray runtime started" in (self.folder / "head.log").read_text(), "the head to start")

    def stop(self) -> None:
        """End what is left of it."""
        if self._head is not None:
            end_tree(self._head.pid)
            self._head.wait()
            self._head = None
            shutil.rmtree(self._temporary, ignore_errors=True)
            (self.folder / "head.log").unlink(missing_ok=True)

    def processes(self, name: str) -> list[psutil.Process]:
        """Its processes whose command line holds `name`."""
        assert self._head is not None
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                told = " ".join(process.cmdline())
                if name in told and (os.getsid(process.pid) == self._head.pid or self._temporary in told):
                    found.append(process)
        return found


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """A cluster for the duration of a block."""
    made = Cluster(folder)
    made.start()
    try:
        yield made
    finally:
        made.stop()


@dataclass
class Training:
    """A stage as the pipeline runs it, on a cluster."""

    request: StageRequest
    cluster: Cluster
    _job: subprocess.Popen[bytes] | None = None

    @property
    def progress(self) -> Path:
        return Path(self.request.progress)

    def start(self) -> subprocess.Popen[bytes]:
        """Start its driver."""
        uri = store.join(self.request.store, f"{self.request.stage}.json")
        store.write_json(uri, self.request.model_dump(mode="json"))
        environment = os.environ | self.cluster.env | {"RAY_ADDRESS": self.cluster.address}
        with (self.cluster.folder / "job.log").open("ab") as log:
            self._job = subprocess.Popen(
                [sys.executable, "-m", f"ray_jobs.{self.request.stage}", "--request", uri],
                env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        return self._job

    def finish(self) -> int:
        """Wait for its end; its exit code."""
        assert self._job is not None
        return self._job.wait(PATIENCE)

    def kill(self) -> None:
        """SIGKILL its driver."""
        assert self._job is not None
        os.killpg(self._job.pid, signal.SIGKILL)
        self._job.wait()

    def losses(self) -> dict[int, float]:
        """step → loss, as its curves have it."""
        if not self.progress.exists():
            return {}
        events, _ = read_progress(self.progress)
        return {event.done: event.metrics["loss"] for event in events if "loss" in event.metrics}

    def wait_for_step(self, step: int) -> None:
        """Return once its curves have got to `step`."""
        until(lambda: max(self.losses(), default=0) >= step, f"step {step}")


def until(met: Callable[[], bool], what: str) -> None:
    """Wait for something."""
    deadline = time.monotonic() + PATIENCE
    while not met():
        assert time.monotonic() < deadline, f"waited {PATIENCE:.0f} s for {what}"
        time.sleep(0.05)
