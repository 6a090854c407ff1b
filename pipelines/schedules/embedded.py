"""Schedules of one machine, or of several on one database: rows in our own tables, kept by `sonarc schedule serve`."""

from __future__ import annotations

import builtins
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from pipelines.compiled import COMPILED
from pipelines.schedules.cron import next_fire, zone_of
from pipelines.schedules.lease import beat
from pipelines.schedules.model import LATEST, Outcome, Schedule, ScheduleState, schedule_of
from pipelines.schedules.tables import RUNS, SCHEDULES, Database
from sonarc.contracts.errors import ConfigError
from sonarc.contracts.hashing import sha256_path

logger = logging.getLogger(__name__)

Now = Callable[[], datetime]
SPEC_DIGITS = 8
"""Fewest digits of the pipeline's hash by which a version is known."""


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class ScheduledRun:
    """One fire of a schedule, and what came of it.

    Attributes:
        due: when it was to start; the first of several that were missed.
        detail: what the run said last, where it did not succeed.
        log: path of what it printed.
        host: the machine it ran on.
        pid: its process, once there is one.
        began: when that process was created, seconds since 1970.
    """

    id: int
    schedule: str
    due: datetime
    started: datetime
    ended: datetime | None
    outcome: Outcome
    detail: str
    log: str
    host: str
    pid: int | None
    began: float | None


class EmbeddedSchedules:
    """The verbs of `pipelines.schedules.model.Schedules`, and what the keeper needs beside them.

    Args:
        now: the time, with a zone.
    """

    def __init__(self, database: Database, now: Now = _now) -> None:
        self._database, self._now = database, now

    def set(self, schedule: Schedule) -> ScheduleState:
        """See `Schedules`.

        Raises:
            ConfigError: cron, zone, preset, overrides or version are not valid; nothing is changed.
        """
        if Path(schedule.preset).suffix == ".json":  # the keeper works in another folder
            schedule = schedule.model_copy(update={"preset": str(Path(schedule.preset).resolve())})
        schedule.config()
        spec = installed_spec()
        if not names_spec(schedule.version, spec):
            raise ConfigError(
                f"The pipeline's version {schedule.version!r} is not installed here.",
                f"Use {LATEST!r}, or stay with the installed one: {spec[:12]}",
            )
        schedule = schedule.model_copy(update={"spec_sha256": spec})
        due = next_fire(schedule.cron, schedule.timezone, self._now())
        values = {**schedule.model_dump(mode="json"), "next_fire": None if schedule.paused else due}
        with self._database.transaction() as connection:
            connection.execute(delete(SCHEDULES).where(SCHEDULES.c.name == schedule.name))
            connection.execute(insert(SCHEDULES).values(values))
        return self._state(schedule.name)

    def list(self) -> list[ScheduleState]:
        """See `Schedules`."""
        with self._database.transaction() as connection:
            rows = connection.execute(select(SCHEDULES).order_by(SCHEDULES.c.name)).mappings().all()
            return [_state(row, _last_run(connection, row["name"])) for row in rows]

    def pause(self, name: str, *, paused: bool = True) -> ScheduleState:
        """See `Schedules`. A schedule that goes on does not make up for the fires in between."""
        schedule = self._state(name).schedule
        due = None if paused else next_fire(schedule.cron, schedule.timezone, self._now())
        with self._database.transaction() as connection:
            change = update(SCHEDULES).where(SCHEDULES.c.name == name)
            connection.execute(change.values(paused=paused, next_fire=due))
        return self._state(name)

    def delete(self, name: str) -> None:
        """See `Schedules`. Its history stays."""
        with self._database.transaction() as connection:
            if connection.execute(delete(SCHEDULES).where(SCHEDULES.c.name == name)).rowcount == 0:
                raise _unknown(name)

    def runs(self, name: str, limit: int = 20) -> builtins.list[ScheduledRun]:
        """The last runs of a schedule, newest first.

        Raises:
            ConfigError: nothing is known under this name.
        """
        with self._database.transaction() as connection:
            query = select(RUNS).where(RUNS.c.schedule == name).order_by(RUNS.c.id.desc()).limit(limit)
            found = [ScheduledRun(**row) for row in connection.execute(query).mappings()]
        if not found:
            self._state(name)
        return found

    def due(self) -> builtins.list[ScheduleState]:
        """Schedules whose next fire is past, the longest waiting first."""
        with self._database.transaction() as connection:
            late = select(SCHEDULES).where(SCHEDULES.c.next_fire <= self._now())
            query = late.order_by(SCHEDULES.c.next_fire, SCHEDULES.c.name)
            rows = connection.execute(query).mappings().all()
        found = []
        for row in rows:
            try:
                found.append(_state(row, None))
            except ConfigError as error:  # set by another version, or where zones are better known
                logger.error("The schedule %s is not understood here, and does not fire: %s", row["name"], error)
        return found

    def claim(self, state: ScheduleState, holder: str, host: str) -> ScheduledRun | None:
        """Record that a schedule's fire begins, and set the next one; None if it is not `holder`'s to begin.

        The lease, the fire and the run's row are one transaction: two keepers cannot both begin it.
        """
        with self._database.transaction() as connection:
            if not (beat(connection, holder) and self._advance(connection, state)):
                return None
            began = {"schedule": state.schedule.name, "due": state.next_fire, "started": self._now(), "host": host}
            key = connection.execute(insert(RUNS).values(**began, outcome="running")).inserted_primary_key
            assert key is not None
            row = connection.execute(select(RUNS).where(RUNS.c.id == key[0])).mappings().one()
            return ScheduledRun(**row)

    def skip(self, state: ScheduleState) -> None:
        """Let a missed fire be missed, and set the next one."""
        with self._database.transaction() as connection:
            self._advance(connection, state)

    def _advance(self, connection: Connection, state: ScheduleState) -> bool:
        """Set the fire after now; False if the schedule was set, paused or deleted meanwhile."""
        schedule = state.schedule
        following = next_fire(schedule.cron, schedule.timezone, self._now())
        unmoved = (SCHEDULES.c.name == schedule.name, SCHEDULES.c.next_fire == state.next_fire)
        return connection.execute(update(SCHEDULES).where(*unmoved).values(next_fire=following)).rowcount == 1

    def started(self, run: ScheduledRun, pid: int, began: float, log: str) -> None:
        """Note the process of a run."""
        with self._database.transaction() as connection:
            connection.execute(update(RUNS).where(RUNS.c.id == run.id).values(pid=pid, began=began, log=log))

    def finish(self, run: ScheduledRun, outcome: Outcome, detail: str = "") -> None:
        """Note how a run ended."""
        ended = {"outcome": outcome, "detail": detail, "ended": self._now()}
        with self._database.transaction() as connection:
            connection.execute(update(RUNS).where(RUNS.c.id == run.id, RUNS.c.outcome == "running").values(ended))

    def unfinished(self) -> builtins.list[ScheduledRun]:
        """Runs of which no end was noted."""
        with self._database.transaction() as connection:
            query = select(RUNS).where(RUNS.c.outcome == "running").order_by(RUNS.c.id)
            return [ScheduledRun(**row) for row in connection.execute(query).mappings()]

    def _state(self, name: str) -> ScheduleState:
        with self._database.transaction() as connection:
            row = connection.execute(select(SCHEDULES).where(SCHEDULES.c.name == name)).mappings().first()
            if row is None:
                raise _unknown(name)
            return _state(row, _last_run(connection, name))


def installed_spec() -> str:
    """Hash of the compiled pipeline that is installed."""
    return sha256_path(COMPILED)


def names_spec(version: str, spec: str) -> bool:
    """Whether a version is `latest`, or ends with the first digits of the pipeline's hash, as `1.2.0-3f2a9c1d4e5b`."""
    digits = re.search(rf"[0-9a-f]{{{SPEC_DIGITS},64}}$", version)
    return version == LATEST or (digits is not None and spec.startswith(digits[0]))


def _last_run(connection: Connection, name: str) -> Mapping[str, Any] | None:
    last = select(func.max(RUNS.c.id)).where(RUNS.c.schedule == name).scalar_subquery()
    return connection.execute(select(RUNS).where(RUNS.c.id == last)).mappings().first()  # type: ignore[return-value]


def _state(row: Mapping[Any, Any], last: Mapping[str, Any] | None) -> ScheduleState:
    given = dict(row)
    due = given.pop("next_fire")
    schedule = schedule_of(**{**given, "overrides": tuple(given["overrides"])})
    return ScheduleState(
        schedule=schedule,
        next_fire=None if due is None else due.astimezone(zone_of(schedule.timezone)),
        last_fire=last["due"] if last else None,
        last_outcome=last["outcome"] if last else None,
    )


def _unknown(name: str) -> ConfigError:
    return ConfigError(f"No schedule is kept under the name {name!r}.", "`sonarc schedule list` shows those that are.")
