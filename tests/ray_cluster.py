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
ATTEMPTS = 5
"""A raylet waits 15 s for its agents, then dies: too short where many work."""


@dataclass
class Cluster:
    """A head on loopback.

    Attributes:
        folder: of its logs and of the jobs'.
    """

    folder: Path
    address: str = ""
    cpus: int = 4
    env: dict[str, str] = field(default_factory=private_env)
    _head: subprocess.Popen[bytes] | None = None
    _nodes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _temporary: str = ""

    def host(self, number: int) -> tuple[list[str], str]:
        """What a command on a host begins with, and the host's address; the head is on host 0."""
        return [], "127.0.0.1"

    def start(self) -> None:
        """Start the head; once it has been killed, another."""
        port = free_port()
        self._temporary = tempfile.mkdtemp(prefix="sonarc-ray-")
        self._head = self._launch(
            0, "head.log", "--head", "--port", str(port), "--include-dashboard", "false", "--num-cpus", str(self.cpus),
            "--temp-dir", self._temporary,
        )  # fmt: skip
        self.address = f"{self.host(0)[1]}:{port}"

    def add_node(self, cpus: int = 1) -> subprocess.Popen[bytes]:
        """Start a node on the next host; its processes are its session's."""
        number = len(self._nodes) + 1
        # Its folder tells a driver which node it is on: each has its own, as on machines of their own.
        folder = f"{self._temporary}-{number}"
        given = ("--address", self.address, "--num-cpus", str(cpus), "--temp-dir", folder)
        self._nodes.append(self._launch(number, f"node-{number}.log", *given))
        return self._nodes[-1]

    def _launch(self, number: int, log_name: str, *arguments: str) -> subprocess.Popen[bytes]:
        inside, address = self.host(number)
        command = [
            *inside, sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--node-ip-address", address,
            *arguments, "--object-store-memory", str(128 << 20), "--disable-usage-stats",
        ]  # fmt: skip
        for _ in range(ATTEMPTS):
            with (self.folder / log_name).open("wb") as log:
                started = subprocess.Popen(
                    command,
                    env=os.environ | self.env,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            while started.poll() is None:
                if "Ray runtime started" in (self.folder / log_name).read_text():
                    return started
                time.sleep(0.2)
            end_tree(started.pid)
        raise AssertionError(f"no node in {ATTEMPTS} attempts: {(self.folder / log_name).read_text()}")

    def stop(self) -> None:
        """End what is left of it."""
        for number, node in enumerate(self._nodes, start=1):
            end_tree(node.pid)
            node.wait()
            shutil.rmtree(f"{self._temporary}-{number}", ignore_errors=True)
        self._nodes.clear()
        if self._head is not None:
            end_tree(self._head.pid)
            self._head.wait()
            self._head = None
            shutil.rmtree(self._temporary, ignore_errors=True)
            (self.folder / "head.log").unlink(missing_ok=True)

    def processes(self, name: str) -> list[psutil.Process]:
        """Its processes whose command line holds `name`."""
        assert self._head is not None
        sessions = {started.pid for started in (self._head, *self._nodes)}
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                told = " ".join(process.cmdline())
                if name in told and (os.getsid(process.pid) in sessions or self._temporary in told):
                    found.append(process)
        return found

    def busy(self, nodes: list[subprocess.Popen[bytes]]) -> list[subprocess.Popen[bytes]]:
        """Those of the nodes that training workers are on."""
        sessions = {os.getsid(process.pid) for process in self.workers()}
        return [node for node in nodes if node.pid in sessions]

    def workers(self) -> list[psutil.Process]:
        """The processes of training workers."""
        return self.processes("ray::RayTrainWorker") or self.processes("RayTrainWorker")


def kill_node(node: subprocess.Popen[bytes]) -> None:
    """SIGKILL every process of a node, as a lost machine: its workers, too, which Ray starts in its session."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if os.getsid(process.pid) == node.pid and process.pid != node.pid:
                process.kill()
    node.kill()


@contextlib.contextmanager
def cluster(folder: Path, cpus: int = 4) -> Iterator[Cluster]:
    """A cluster for the duration of a block, its head with so many CPUs."""
    made = Cluster(folder, cpus=cpus)
    try:
        made.start()
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
                [*self.cluster.host(0)[0], sys.executable, "-m", f"ray_jobs.{self.request.stage}", "--request", uri],
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
