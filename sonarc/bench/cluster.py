"""A Ray of one machine that can be killed, and stages on it as processes of their own, for benchmarks and tests."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from sonarc.contracts import store
from sonarc.contracts.computing import computing_env
from sonarc.contracts.errors import StageError
from sonarc.contracts.processes import end_tree, free_port, private_env, tree
from sonarc.contracts.progress import read_progress
from sonarc.contracts.result import StageRequest, StageResult, read_result

PATIENCE = 180.0
ATTEMPTS = 5
"""Ray gives its own parts 15 to 30 s to come up, then ends: too short where many work."""
OBJECT_STORE_BYTES = 256 << 20
JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""By which Ray's jobs API hands a driver the environment of its workers."""


@dataclass
class Cluster:
    """A head on loopback, and nodes beside it.

    Attributes:
        folder: of its logs and of the jobs'.
        cpus: how many the head declares.
        env: what its processes and its clients have in their environment.
    """

    folder: Path
    cpus: int = 4
    address: str = ""
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
            "--temp-dir", self._temporary, "--ray-client-server-port", str(free_port()),
        )  # fmt: skip
        self.address = f"{self.host(0)[1]}:{port}"

    def add_node(self, cpus: int = 1) -> subprocess.Popen[bytes]:
        """Start a node on the next host; its processes are its session's."""
        number = len(self._nodes) + 1
        # Its folder tells a driver which node it is on: each has its own, as on machines of their own.
        given = ("--address", self.address, "--num-cpus", str(cpus), "--temp-dir", f"{self._temporary}-{number}")
        self._nodes.append(self._launch(number, f"node-{number}.log", *given))
        return self._nodes[-1]

    def _launch(self, number: int, log_name: str, *arguments: str) -> subprocess.Popen[bytes]:
        inside, address = self.host(number)
        command = [
            *inside, sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--node-ip-address", address,
            *arguments, "--object-store-memory", str(OBJECT_STORE_BYTES), "--disable-usage-stats",
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
        raise StageError(f"Ray did not start in {ATTEMPTS} attempts: {log_name}.", "Is the machine busy?")

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

    def members(self) -> list[psutil.Process]:
        """All its processes: the head's, the nodes', and the workers they started."""
        started = [*([self._head] if self._head is not None else []), *self._nodes]
        return [process for one in started for process in tree(one.pid)]

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
    """A cluster for the duration of a block."""
    made = Cluster(folder, cpus)
    try:
        made.start()
        yield made
    finally:
        made.stop()


@dataclass
class Job:
    """A stage as the pipeline runs it, on a cluster, in the environment that jobs compute in.

    Attributes:
        module: what is run; empty: the stage's own.
        arguments: what it takes besides the request.
    """

    request: StageRequest
    cluster: Cluster
    module: str = ""
    arguments: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    _process: subprocess.Popen[bytes] | None = None

    @property
    def progress(self) -> Path:
        """Its `progress.jsonl`."""
        return Path(self.request.progress)

    def start(self) -> subprocess.Popen[bytes]:
        """Start its driver."""
        uri = self.cluster.folder.as_uri() + f"/{self.request.stage}.json"
        store.write_json(uri, self.request.model_dump(mode="json"))
        module = self.module or f"ray_jobs.{self.request.stage}"
        computing = computing_env(self.request.config.compute.threads)
        handed = json.dumps({"runtime_env": {"env_vars": computing}})
        env = computing | {"RAY_ADDRESS": self.cluster.address, JOB_CONFIG: handed}
        with (self.cluster.folder / "job.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self.cluster.host(0)[0], sys.executable, "-m", module, "--request", uri, *self.arguments],
                env=os.environ | self.cluster.env | env | dict(self.env),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        return self._process

    def members(self) -> list[psutil.Process]:
        """The driver and what it started."""
        return tree(self._process.pid) if self._process is not None else []

    def finish(self, patience: float = PATIENCE) -> int:
        """Wait for its end; its exit code."""
        assert self._process is not None
        return self._process.wait(patience)

    def result(self, patience: float = PATIENCE) -> StageResult:
        """Wait for its end; its result.

        Raises:
            StageError: it failed.
        """
        if self.finish(patience):
            raise StageError(f"The stage {self.request.stage} failed.", f"See job.log in {self.cluster.folder}.")
        return read_result(self.request.folder())

    def kill(self) -> None:
        """SIGKILL its driver; one that has ended stays so."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def losses(self) -> dict[int, float]:
        """step → loss, as its curves have it."""
        if not self.progress.exists():
            return {}
        events, _ = read_progress(self.progress)
        return {int(event.done): event.metrics["loss"] for event in events if "loss" in event.metrics}

    def wait_for_step(self, step: int) -> None:
        """Return once its curves have got to `step`."""
        until(lambda: max(self.losses(), default=0) >= step, f"step {step}")


def until(met: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
    """Wait for something.

    Raises:
        StageError: it did not come about.
    """
    deadline = time.monotonic() + patience
    while not met():
        if time.monotonic() > deadline:
            raise StageError(f"Waited {patience:.0f} s for {what}.", "Is the machine busy?")
        time.sleep(0.05)
