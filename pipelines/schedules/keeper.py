"""The process that starts scheduled runs: one at a time, since a run takes the whole machine."""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from pipelines.schedules.embedded import EmbeddedSchedules, ScheduledRun, installed_spec, names_spec
from pipelines.schedules.lease import Lease
from pipelines.schedules.model import Outcome, Schedule, ScheduleState
from pipelines.schedules.process import end_orphan
from sonarc.contracts.errors import ConfigError, SonarcError, StoreError

TICK_SECONDS = 5.0
PUNCTUAL = timedelta(minutes=2)
"""A fire that is seen later than this was missed."""

logger = logging.getLogger(__name__)


class Running(Protocol):
    """A run that was started, as `pipelines.schedules.process.RunProcess`."""

    pid: int
    began: float
    log: str

    def ended(self) -> tuple[Outcome, str] | None:
        """How it ended, and what it said last; None while it goes on."""
        ...

    def stop(self) -> None:
        """End it and all it started."""
        ...


Start = Callable[[Schedule, ScheduledRun], Running]


@dataclass
class _Current:
    """The run that goes on."""

    run: ScheduledRun
    running: Running


class Keeper:
    """Starts what is due while it holds the lease.

    Args:
        start: begins a run.
        now: the time, with a zone.
    """

    def __init__(
        self,
        schedules: EmbeddedSchedules,
        lease: Lease,
        start: Start,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._schedules, self._lease, self._start, self._now = schedules, lease, start, now
        self._holds = False
        self._current: _Current | None = None
        self._queued: dict[str, datetime] = {}
        """Fires that were seen in time, while another schedule's run had the machine."""

    def serve(self) -> None:
        """Keep schedules until interrupted; what is running then is ended and noted as failed."""
        try:
            while True:
                try:
                    self.tick()
                except StoreError as error:
                    logger.warning("%s It is asked again.", error)
                time.sleep(TICK_SECONDS)
        finally:
            self.close()

    def tick(self) -> None:
        """Look once: has the run ended, is another one due?

        Raises:
            StoreError: the database does not say; nothing was started.
        """
        if not self._lease.hold():
            if self._holds:
                logger.warning("Another keeper has taken over; this one waits.")
            self._holds = False
            self._abandon("another keeper took over")
            return
        if not self._holds:
            self._holds = True
            logger.info("%s keeps the schedules.", self._lease.me)
            self._take_over()
        self._note_end()
        self._fire()

    def close(self) -> None:
        """End the run that goes on, and give the lease away."""
        self._abandon("its keeper was stopped")
        self._lease.release()

    def _take_over(self) -> None:
        """Runs that a dead keeper left are ended, where they can be reached, and failed."""
        for run in self._schedules.unfinished():
            if self._current and run.id == self._current.run.id:
                continue
            lived = end_orphan(run)
            self._schedules.finish(
                run, "failed", f"Its keeper died{'; what was left of it was ended' if lived else ''}."
            )
            logger.warning("The run of %s due at %s had lost its keeper.", run.schedule, run.due)

    def _abandon(self, why: str) -> None:
        if self._current is None:
            return
        current, self._current = self._current, None
        current.running.stop()
        self._schedules.finish(current.run, "failed", f"Ended: {why}.")

    def _note_end(self) -> None:
        if self._current is None or (ended := self._current.running.ended()) is None:
            return
        run = self._current.run
        self._schedules.finish(run, *ended)
        self._current = None
        logger.info("%s due at %s: %s %s", run.schedule, run.due, *ended)

    def _fire(self) -> None:
        for state in self._schedules.due():
            name = state.schedule.name
            if self._current is not None:
                if name != self._current.run.schedule and not self._missed(state):
                    assert state.next_fire is not None
                    self._queued[name] = state.next_fire
            elif state.schedule.catch_up == "none" and self._missed(state):
                logger.warning("%s: the fire of %s was missed.", name, state.next_fire)
                self._schedules.skip(state)
            else:
                self._begin(state)

    def _missed(self, state: ScheduleState) -> bool:
        assert state.next_fire is not None
        queued = self._queued.get(state.schedule.name) == state.next_fire
        return not queued and self._now() - state.next_fire > PUNCTUAL

    def _begin(self, state: ScheduleState) -> None:
        """Record the fire, then start it."""
        schedule = state.schedule
        run = self._schedules.claim(state, self._lease.me, platform.node())
        if run is None:
            return
        self._queued.pop(schedule.name, None)
        try:
            _check_version(schedule)
            running = self._start(schedule, run)
        except (SonarcError, OSError) as error:
            self._schedules.finish(run, "failed", str(error))
            logger.error("%s: %s", schedule.name, error)
            return
        self._current = _Current(run, running)
        logger.info("%s due at %s: started, %s", schedule.name, run.due, running.log)
        self._schedules.started(run, running.pid, running.began, running.log)


def _check_version(schedule: Schedule) -> None:
    if not names_spec(schedule.version, spec := installed_spec()):
        raise ConfigError(
            f"The schedule stays with version {schedule.version}, and {spec[:12]} is installed.",
            "Install that version, or set the schedule again.",
        )
