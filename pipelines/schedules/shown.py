"""Schedules and their runs in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipelines.schedules.cron import zone_of
from pipelines.schedules.embedded import ScheduledRun
from pipelines.schedules.lease import GRACE_SECONDS, holder
from pipelines.schedules.model import Outcome, ScheduleState
from pipelines.schedules.tables import Database

_STYLES: dict[Outcome, str] = {
    "running": "cyan", "succeeded": "green", "nothing_new": "dim", "refused": "yellow", "failed": "red",
}  # fmt: skip


def show_schedules(states: Sequence[ScheduleState]) -> None:
    """Print every schedule: what, when next in its own zone, how the last run ended."""
    if not states:
        Console().print("No schedule is set: `sonarc schedule set` sets one.")
        return
    table = Table(box=None, header_style="bold")
    for column in ("name", "cron", "zone", "runs", "version", "next fire", "last fire", "outcome"):
        table.add_column(column, overflow="fold")
    for state in states:
        schedule = state.schedule
        what = " ".join([schedule.preset, *schedule.overrides])
        following = _at(state.next_fire, schedule.timezone) if state.next_fire else "paused"
        last = _at(state.last_fire, schedule.timezone) if state.last_fire else "–"
        outcome = _word(state.last_outcome) if state.last_outcome else Text("–")
        table.add_row(schedule.name, schedule.cron, schedule.timezone, what, schedule.version, following, last, outcome)
    Console().print(table)


def show_runs(runs: Sequence[ScheduledRun]) -> None:
    """Print runs: when they were due, how long they took, how they ended and what they said."""
    if not runs:
        Console().print("It has not fired yet.")
        return
    table = Table(box=None, header_style="bold")
    for column in ("due", "started", "minutes", "outcome", "said", "log"):
        table.add_column(column, overflow="fold")
    for run in runs:
        taken = f"{((run.ended or datetime.now(UTC)) - run.started).total_seconds() / 60:.1f}"
        table.add_row(_at(run.due, "UTC"), _at(run.started, "UTC"), taken, _word(run.outcome), run.detail, run.log)
    Console().print(table)


def show_keeper() -> None:
    """Print who keeps the embedded schedules."""
    found = holder(Database.default())
    if found is None:
        Console().print("Nobody keeps them: `sonarc schedule serve` does.", style="yellow")
        return
    seconds = (datetime.now(UTC) - found.seen).total_seconds()
    style = "" if seconds < GRACE_SECONDS else "yellow"
    Console().print(f"Kept by {found.name}, last seen {seconds:.0f} s ago.", style=style)


def in_words(state: ScheduleState) -> str:
    """A schedule in one sentence."""
    schedule = state.schedule
    if state.next_fire is None:
        return f"{schedule.name} is paused."
    return f"{schedule.name} fires next at {_at(state.next_fire, schedule.timezone)}."


def _at(moment: datetime, timezone: str) -> str:
    return f"{moment.astimezone(zone_of(timezone)):%a %Y-%m-%d %H:%M %Z}"


def _word(outcome: Outcome) -> Text:
    return Text(outcome.replace("_", " "), _STYLES[outcome])
