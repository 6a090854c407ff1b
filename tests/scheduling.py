"""A clock to turn, runs that end when they are told to, and a keeper in a process of its own, to be killed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import psutil

from pipelines.schedules.embedded import EmbeddedSchedules, ScheduledRun
from pipelines.schedules.keeper import Keeper
from pipelines.schedules.lease import Lease
from pipelines.schedules.model import Outcome, Schedule
from pipelines.schedules.tables import VARIABLE, Database
from sonarc.contracts.database import place_of
from sonarc.contracts.processes import end_tree

GRACE = 1.0


class Clock:
    """A time that stands still until it is turned."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def turn(self, **by: float) -> None:
        self.now += timedelta(**by)


class Told:
    """A run that goes on until it is told how it ends."""

    pid, began, log = os.getpid(), 0.0, "log"

    def __init__(self) -> None:
        self.end: tuple[Outcome, str] | None = None
        self.stopped = False

    def ended(self) -> tuple[Outcome, str] | None:
        return self.end

    def stop(self) -> None:
        self.stopped = True


class Sleeper:
    """A run that sleeps, in a session of its own."""

    log = ""

    def __init__(self) -> None:
        self._process = subprocess.Popen(["sleep", "300"], start_new_session=True)
        self.pid = self._process.pid
        self.began = psutil.Process(self.pid).create_time()

    def ended(self) -> tuple[Outcome, str] | None:
        return None if self._process.poll() is None else ("failed", "it woke")

    def stop(self) -> None:
        end_tree(self.pid)
        self._process.wait()


def opened(folder: Path) -> Database:
    """The database that the environment names, else a file in `folder`."""
    return Database(place_of(VARIABLE, folder / "schedules.db", "sonarc-tests"))


def keeper_of(
    database: Database,
    start: Callable[[Schedule, ScheduledRun], Told],
    clock: Clock,
    seconds: Callable[[], float] = lambda: 0.0,
) -> Keeper:
    """A keeper whose days and whose patience go by as they are told to."""
    lease = Lease(database, grace=GRACE, clock=seconds)
    return Keeper(EmbeddedSchedules(database, clock), lease, start, clock)


def main() -> None:
    """Keep schedules by the real clock until killed: `python scheduling.py FOLDER`."""
    database = opened(Path(sys.argv[1]))
    keeper = Keeper(EmbeddedSchedules(database), Lease(database, grace=GRACE), lambda *_: Sleeper())
    from pipelines.schedules import keeper as module

    module.TICK_SECONDS = 0.2
    keeper.serve()


if __name__ == "__main__":
    main()
