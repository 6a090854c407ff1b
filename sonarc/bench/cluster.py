"""A Ray of one machine that can be killed, and stages on it as processes of their own, for benchmarks and tests."""

from __future__ import annotations

import contextlib
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
from sonarc.contracts.errors import StageError
from sonarc.contracts.processes import end_tree, free_port, private_env, tree
from sonarc.contracts.progress import read_progress
from sonarc.contracts.result import StageRequest, StageResult, read_result

PATIENCE = 180.0
START_PATIENCE, ATTEMPTS = 420.0, 3
OBJECT_STORE_BYTES = 256 << 20


@dataclass
class Cluster:
    """A head on loopback.

    Attributes:
        folder: of its logs and of the jobs'.
        cpus: how many it declares.
        env: what it and its clients have in their environment.
    """

    folder: Path
    cpus: int = 4
    address: str = ""
    env: dict[str, str] = field(default_factory=private_env)
    _head: subprocess.Popen[bytes] | None = None
    _temporary: str = ""

    def start(self) -> None:
        """Start the head; once it has been killed, another."""
        for _ in range(ATTEMPTS):
            self._start()
            until(lambda: self._up() or self._ended(), "the head to start", START_PATIENCE)
            if self._up():
                return
            self.stop()  # Ray gives its own parts 30 s to come up; on a busy machine that can be too little
        raise StageError(f"The head did not start in {ATTEMPTS} attempts.", "Is the machine busy?")

    def _up(self) -> bool:
        return "Ray runtime started" in (self.folder / "head.log").read_text()

    def _ended(self) -> bool:
        return self._head is None or self._head.poll() is not None

    def _start(self) -> None:
        port = free_port()
        self._temporary = tempfile.mkdtemp(prefix="sonarc-ray-")
        command = [
            sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block",
            "--node-ip-address", "127.0.0.1", "--port", str(port), "--include-dashboard", "false",
            "--num-cpus", str(self.cpus), "--object-store-memory", str(OBJECT_STORE_BYTES),
            "--temp-dir", self._temporary, "--disable-usage-stats",
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

    def stop(self) -> None:
        """End what is left of it."""
        if self._head is not None:
            end_tree(self._head.pid)
            self._head.wait()
            self._head = None
            shutil.rmtree(self._temporary, ignore_errors=True)
            (self.folder / "head.log").unlink(missing_ok=True)

    def members(self) -> list[psutil.Process]:
        """All its processes: the head's, and the workers it started."""
        return tree(self._head.pid) if self._head is not None else []

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
    """A stage as the pipeline runs it, on a cluster.

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
        with (self.cluster.folder / "job.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, "--request", uri, *self.arguments],
                env=os.environ | self.cluster.env | dict(self.env) | {"RAY_ADDRESS": self.cluster.address},
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
