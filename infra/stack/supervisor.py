"""Starts services in order, each once the one before is ready; ends them in reverse. Nothing of it stays running.

Each service leads a session of its own, and `<folder>/run/<name>.json` names its process; so another command finds
it, and ends it with all it started.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import psutil

from infra.stack.service import Service
from sonarc.contracts.errors import ConfigError, SonarcError, StageError
from sonarc.contracts.processes import began, end_tree

POLL_SECONDS = 0.5
CLOCK_SECONDS = 1.0
"""By which the machine's clock may be set while a service runs."""
LOG_TAIL_LINES = 15
State = Literal["running", "died", "stopped"]


@dataclass(frozen=True)
class Record:
    """A service's process.

    Attributes:
        began: when it was created, seconds since 1970: with the pid it names a process for good.
        settled: whether what follows readiness is done.
    """

    pid: int
    began: float
    settled: bool = False

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        with contextlib.suppress(psutil.Error):
            return self.is_it and psutil.Process(self.pid).status() != psutil.STATUS_ZOMBIE
        return False

    @property
    def is_it(self) -> bool:
        """Whether the process of this pid is the recorded one, and not another that got its pid."""
        return abs(began(self.pid) - self.began) < CLOCK_SECONDS


@dataclass(frozen=True)
class Standing:
    """How a service stands.

    Attributes:
        log_tail: the end of its log, if it died.
    """

    service: Service
    state: State
    pid: int | None
    log: Path
    log_tail: str


class Supervisor:
    """The services of a folder.

    Args:
        folder: of logs and records; made if it is not there.
        services: in the order they start.
        say: takes what is told on the way.
    """

    def __init__(self, folder: Path, services: Sequence[Service], say: Callable[[str], None]) -> None:
        self._folder, self._services, self._say = folder, tuple(services), say
        for name in ("logs", "run"):
            (folder / name).mkdir(parents=True, exist_ok=True)

    def up(self) -> list[str]:
        """Start what does not run, and wait until it is ready. Services that were ready before an error, or Ctrl-C,
        stay: `up` goes on from there, `down` ends them.

        Returns:
            Names of those that were started.

        Raises:
            StageError: one ended, or was not ready in time; with the end of its log.
        """
        started = []
        with self._only_one():
            for service in self._services:
                record, since = self._record(service), time.monotonic()
                if record is not None and record.alive and record.settled:
                    self._say(f"{service.name}: runs  {service.address}")
                    continue
                self._say(f"{service.name}: starting")
                if record is None or not record.alive:
                    record = self._start(service, record)
                    started.append(service.name)
                self._settle(service, record)
                self._say(f"{service.name}: ready after {time.monotonic() - since:.0f} s  {service.address}")
        return started

    def down(self) -> list[str]:
        """End all, the last first; data and logs stay.

        Returns:
            Names of those that ran.
        """
        ended = []
        with self._only_one():
            for service in reversed(self._services):
                record = self._record(service)
                if record is not None:
                    if record.alive:
                        self._say(f"{service.name}: ending")
                        ended.append(service.name)
                    self._end(service, record)
                service.ended()
                self._path(service).unlink(missing_ok=True)
        return ended

    def status(self) -> list[Standing]:
        """How each service stands."""
        return [self._standing(service) for service in self._services]

    def log(self, service: Service) -> Path:
        """What a service prints; the log of the start before is beside it."""
        return self._folder / "logs" / f"{service.name}.log"

    def _standing(self, service: Service) -> Standing:
        record, log = self._record(service), self.log(service)
        if record is None:
            return Standing(service, "stopped", None, log, "")
        if record.alive:
            return Standing(service, "running", record.pid, log, "")
        return Standing(service, "died", record.pid, log, log_tail(log))

    def _start(self, service: Service, before: Record | None) -> Record:
        if before is not None:
            self._end(service, before)  # what one that died may have left
        service.ended()
        service.prepare()
        log = self.log(service)
        if log.exists():
            log.replace(log.with_suffix(".log.1"))
        with log.open("wb") as output:
            child = subprocess.Popen(
                service.command,
                env=dict(service.environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **({"cwd": self._folder} | dict(service.as_user)),
            )
        record = Record(child.pid, began(child.pid))
        self._write(service, record)
        return record

    def _settle(self, service: Service, record: Record) -> None:
        """Wait until it is ready, and do what follows; one that does not get that far is ended."""
        deadline = time.monotonic() + service.patience
        try:
            while not service.ready():
                if not record.alive:
                    raise self._failure(service, f"{service.name} ended before it was ready.")
                if time.monotonic() > deadline:
                    raise self._failure(service, f"{service.name} was not ready after {service.patience:.0f} s.")
                time.sleep(POLL_SECONDS)
        except BaseException:
            self._end(service, record)
            raise
        service.settle()
        self._write(service, Record(record.pid, record.began, settled=True))

    def _failure(self, service: Service, message: str) -> SonarcError:
        log = self.log(service)
        return StageError(message, f"The end of its log, {log}:\n{log_tail(log)}")

    @staticmethod
    def _end(service: Service, record: Record) -> None:
        """Ask it to end in order, then end what is left of it and of what it started."""
        if record.alive:
            with contextlib.suppress(psutil.Error):
                leader = psutil.Process(record.pid)
                leader.send_signal(service.end_with)
                psutil.wait_procs([leader], timeout=service.grace)
        if record.is_it or not psutil.pid_exists(record.pid):  # else its pid is another's, and nothing of it is left
            end_tree(record.pid)

    def _path(self, service: Service) -> Path:
        return self._folder / "run" / f"{service.name}.json"

    def _record(self, service: Service) -> Record | None:
        return _read(self._path(service))

    def _write(self, service: Service, record: Record) -> None:
        path = self._path(service)
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(asdict(record)), encoding="utf-8")
        fresh.replace(path)

    @contextlib.contextmanager
    def _only_one(self) -> Iterator[None]:
        with (self._folder / "run" / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ConfigError(
                    f"Another command starts or ends the services of {self._folder} just now.", "Wait for it."
                ) from error
            yield


def log_tail(log: Path) -> str:
    """The last lines of a log."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 16_384))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return "(there is none)"
    return "\n".join(lines[-LOG_TAIL_LINES:])


def running(folder: Path) -> bool:
    """Whether a service of a folder runs."""
    return any(record.alive for path in (folder / "run").glob("*.json") if (record := _read(path)))


def _read(path: Path) -> Record | None:
    try:
        return Record(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"{path} is no record of a process.", f"End {path.stem} by hand and remove the file."
        ) from error
