"""Schedules that Sonarc keeps itself: rows in a file or a real PostgreSQL; keepers that overlap, die and take over."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import psutil
import pytest
import scheduling
from postgres import Postgres, postgres
from ray_cluster import until
from scheduling import GRACE, Clock, Told, keeper_of, opened
from sqlalchemy import text, update
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.schedules.embedded import EmbeddedSchedules, installed_spec
from pipelines.schedules.keeper import PUNCTUAL
from pipelines.schedules.model import Schedule, ScheduleState
from pipelines.schedules.process import RunProcess
from pipelines.schedules.tables import RUNS, SCHEDULES, VARIABLE, Database
from sonarc.contracts.errors import ConfigError, StoreError

SUNDAY = datetime(2026, 3, 22, 1, 30, tzinfo=UTC)  # half an hour before it is three in Berlin
_names = count()


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres() as found:
        yield found


@pytest.fixture(params=["file", pytest.param("PostgreSQL", marks=pytest.mark.slow)])
def database(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Database]:
    """Tables of one's own, in a file or in the server."""
    if request.param == "file":
        monkeypatch.delenv(VARIABLE, raising=False)
    else:
        running: Postgres = request.getfixturevalue("server")
        name = f"schedules{next(_names)}"
        with running.connect() as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        monkeypatch.setenv(VARIABLE, running.url.rpartition("/")[0] + f"/{name}")
    found = opened(tmp_path)
    yield found
    found.close()


@pytest.fixture
def clock() -> Clock:
    return Clock(SUNDAY)


@pytest.fixture
def schedules(database: Database, clock: Clock) -> EmbeddedSchedules:
    return EmbeddedSchedules(database, clock)


def weekly(name: str = "weekly", **other: object) -> Schedule:
    given = {"cron": "0 3 * * SUN", "timezone": "Europe/Berlin", "preset": "ci", **other}
    return Schedule(name=name, **given)


def outcomes(schedules: EmbeddedSchedules, name: str = "weekly") -> list[tuple[str, str]]:
    return [(f"{run.due:%d %H:%M}", run.outcome) for run in reversed(schedules.runs(name))]


def test_setting_twice_leaves_one_and_every_verb_says_where_it_stands(
    schedules: EmbeddedSchedules, clock: Clock
) -> None:
    schedules.set(weekly(cron="0 4 * * *", overrides=("arc.steps=7",)))
    state = schedules.set(weekly(overrides=("arc.steps=9",)))
    assert schedules.list() == [state]
    assert state.next_fire is not None and state.next_fire.isoformat() == "2026-03-22T03:00:00+01:00"
    assert state.schedule.spec_sha256 == installed_spec() and state.schedule.config().arc.steps == 9
    assert state.schedule.config().retrain.only_new, "a scheduled run goes on from the champion"

    assert schedules.pause("weekly").next_fire is None
    clock.turn(days=1)
    resumed = schedules.pause("weekly", paused=False)
    assert resumed.next_fire is not None
    assert resumed.next_fire.isoformat() == "2026-03-29T03:00:00+02:00", "three o'clock in summer, too"
    schedules.delete("weekly")
    assert schedules.list() == []
    for verb in (schedules.delete, schedules.pause, schedules.runs):
        with pytest.raises(ConfigError, match="No schedule is kept under the name 'weekly'"):
            verb("weekly")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"cron": "0 25 * * *"}, "bad hour"),
        ({"timezone": "Berlin"}, "no time zone 'Berlin'"),
        ({"preset": "huge"}, "no preset 'huge'"),
        ({"overrides": ("arc.steps=-1",)}, r"arc\.steps"),
        ({"version": "1.0.0-0123456789ab"}, "'1.0.0-0123456789ab' is not installed"),
    ],
)
def test_what_is_not_valid_changes_nothing(tmp_path: Path, wrong: dict[str, object], said: str) -> None:
    schedules = EmbeddedSchedules(opened(tmp_path), Clock(SUNDAY))
    before = schedules.set(weekly())
    with pytest.raises(ConfigError, match=said):
        schedules.set(weekly(**wrong))
    assert schedules.list() == [before]


def test_a_fire_is_recorded_before_it_starts_and_its_outcome_after(
    database: Database, schedules: EmbeddedSchedules, clock: Clock
) -> None:
    started: list[Told] = []

    def start(schedule: Schedule, run: object) -> Told:
        assert outcomes(schedules) == [("22 02:00", "running")], "it was recorded first"
        started.append(Told())
        return started[-1]

    keeper = keeper_of(database, start, clock)
    schedules.set(weekly())
    keeper.tick()
    assert not started
    clock.turn(minutes=30)
    for _ in range(3):
        keeper.tick()
    assert len(started) == 1
    clock.turn(minutes=50)
    started[0].end = ("refused", "the gate said no")
    keeper.tick()
    (run,) = schedules.runs("weekly")
    assert (run.outcome, run.detail, run.ended) == ("refused", "the gate said no", clock.now)
    (state,) = schedules.list()
    assert (state.last_outcome, state.last_fire) == ("refused", run.due)
    assert state.next_fire is not None and state.next_fire.isoformat() == "2026-03-29T03:00:00+02:00"


def test_one_run_has_the_machine_and_the_others_wait_their_turn(
    database: Database, schedules: EmbeddedSchedules, clock: Clock
) -> None:
    runs: dict[str, Told] = {}
    keeper = keeper_of(database, lambda schedule, _: runs.setdefault(schedule.name, Told()), clock)
    schedules.set(weekly("long"))
    schedules.set(weekly("patient", cron="10 3 * * *", catch_up="none"))
    schedules.set(weekly("hourly", cron="0 * * * *", catch_up="none"))
    keeper.tick()
    clock.turn(minutes=30)
    keeper.tick()
    assert list(runs) == ["hourly"], "of those due together the first by name"
    for _ in range(8):
        clock.turn(minutes=10)
        keeper.tick()
    assert list(runs) == ["hourly"], "it does not overlap itself, nor does another start beside it"
    runs["hourly"].end = ("succeeded", "")
    keeper.tick()
    assert list(runs) == ["hourly", "long"]
    runs["long"].end = ("succeeded", "")
    for name in ("patient", "hourly"):
        keeper.tick()
        if name in runs:
            runs[name].end = ("succeeded", "")
    assert list(runs) == ["hourly", "long", "patient"], "it was due in time, and waited for the machine"
    assert outcomes(schedules, "hourly") == [("22 02:00", "succeeded")], "what it overlapped was missed"


@pytest.mark.parametrize(("policy", "expected"), [("one", ["22 02:00", "12 01:00"]), ("none", ["12 01:00"])])
def test_missed_fires_are_made_up_for_once_or_not_at_all(
    tmp_path: Path, clock: Clock, policy: str, expected: list[str]
) -> None:
    database = opened(tmp_path)
    schedules = EmbeddedSchedules(database, clock)
    schedules.set(weekly(catch_up=policy))
    clock.turn(days=18)  # nobody kept them for three Sundays; the change to summer time fell between

    def start(*_: object) -> Told:
        run = Told()
        run.end = ("succeeded", "")
        return run

    keeper = keeper_of(database, start, clock)
    for _ in range(3):
        keeper.tick()
    clock.now = datetime(2026, 4, 12, 1, 0, 1, tzinfo=UTC)
    for _ in range(3):
        keeper.tick()
    assert outcomes(schedules) == [(due, "succeeded") for due in expected]


def test_keepers_that_all_believe_in_themselves_begin_no_fire_twice(database: Database, tmp_path: Path) -> None:
    """Four keepers without patience, so that the lease changes hands all the time."""
    schedules, clocks = EmbeddedSchedules(database, Clock(SUNDAY)), [Clock(SUNDAY) for _ in range(4)]
    for name in ("a", "b"):
        schedules.set(weekly(name, cron="* * * * *"))
    begun: list[tuple[str, datetime]] = []
    gate, seconds = threading.Barrier(len(clocks)), count()

    def start(schedule: Schedule, run: object) -> Told:
        begun.append((schedule.name, run.due))  # type: ignore[attr-defined]
        told = Told()
        told.end = ("succeeded", "")
        return told

    def keep(clock: Clock) -> None:
        mine = opened(tmp_path)
        keeper = keeper_of(mine, start, clock, lambda: 10.0 * next(seconds))
        gate.wait()
        for _ in range(12):
            clock.turn(seconds=40)
            keeper.tick()
        mine.close()

    threads = [threading.Thread(target=keep, args=(clock,)) for clock in clocks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(begun) == len(set(begun)) >= 1  # how many depends on whom the lease meets when
    with database.transaction() as connection:
        rows = connection.execute(RUNS.select()).mappings().all()
    assert sorted(begun) == sorted((row["schedule"], row["due"]) for row in rows)


@pytest.mark.slow
def test_a_keeper_killed_dead_is_taken_over_and_its_run_ended(
    database: Database, schedules: EmbeddedSchedules, tmp_path: Path, clock: Clock
) -> None:
    schedules.set(weekly())  # by a clock of the past: by the real one it is due
    process = subprocess.Popen(
        [sys.executable, scheduling.__file__, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    try:
        until(lambda: any(run.pid for run in schedules.unfinished()), "a run")
        (run,) = schedules.unfinished()
        assert run.pid is not None and psutil.pid_exists(run.pid)
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        sleeper = psutil.Process(run.pid)

        begun: list[Told] = []
        clock.now = datetime.now(UTC)
        seconds = Clock(SUNDAY)
        keeper = keeper_of(
            database, lambda *_: begun.append(Told()) or begun[-1], clock, lambda: seconds.now.timestamp()
        )
        for _ in range(3):
            keeper.tick()
        assert sleeper.is_running() and schedules.runs("weekly")[0].outcome == "running", "it may still be alive"
        seconds.turn(seconds=1.1 * GRACE)
        keeper.tick()
        assert not sleeper.is_running()
        (ended,) = schedules.runs("weekly")
        assert ended.outcome == "failed" and "keeper died" in ended.detail
        assert not begun, "the fire was made; the next one comes in its time"
        (state,) = schedules.list()
        assert state.next_fire is not None
        clock.now = state.next_fire
        keeper.tick()
        assert len(begun) == 1
    finally:
        process.kill()
        process.wait()


def test_a_keeper_that_slept_too_long_ends_its_run_and_waits(
    database: Database, schedules: EmbeddedSchedules, clock: Clock
) -> None:
    schedules.set(weekly())
    clock.turn(minutes=31)
    first, second = Told(), Told()
    seconds = Clock(SUNDAY)
    sleepy = keeper_of(database, lambda *_: first, clock)
    sleepy.tick()
    other = keeper_of(database, lambda *_: second, clock, lambda: seconds.now.timestamp())
    other.tick()
    seconds.turn(seconds=1.1 * GRACE)
    other.tick()
    assert outcomes(schedules) == [("22 02:00", "failed")]
    sleepy.tick()
    assert first.stopped
    clock.turn(days=7)
    sleepy.tick()
    other.tick()
    assert outcomes(schedules) == [("22 02:00", "failed"), ("29 01:00", "running")]
    other.close()
    assert second.stopped and outcomes(schedules)[-1] == ("29 01:00", "failed")
    assert "its keeper was stopped" in schedules.runs("weekly")[0].detail


def test_a_schedule_that_is_not_understood_keeps_no_other_from_firing(
    schedules: EmbeddedSchedules, database: Database, clock: Clock
) -> None:
    for name in ("another", "odd", "weekly"):
        schedules.set(weekly(name))
    with database.transaction() as connection:
        for name, wrong in (("another", {"timezone": "Mars/Olympus"}), ("odd", {"catch_up": "all"})):
            connection.execute(update(SCHEDULES).where(SCHEDULES.c.name == name).values(wrong))
    clock.turn(hours=1)
    keeper_of(database, lambda schedule, run: Told(), clock).tick()
    assert [run.outcome for run in schedules.runs("weekly")] == ["running"]


def test_a_schedule_that_stays_with_a_version_does_not_run_another(
    database: Database, schedules: EmbeddedSchedules, clock: Clock
) -> None:
    pinned = schedules.set(weekly(version=f"sonarc-1.2-{installed_spec()[:12]}"))
    with database.transaction() as connection:  # as if another Sonarc had been installed since
        connection.execute(SCHEDULES.update().values(version="sonarc-1.1-0123456789ab"))
    clock.turn(minutes=31)
    keeper = keeper_of(database, lambda *_: Told(), clock)
    keeper.tick()
    (run,) = schedules.runs("weekly")
    assert run.outcome == "failed" and "stays with version sonarc-1.1-0123456789ab" in run.detail
    assert pinned.schedule.version.endswith(installed_spec()[:12])


@pytest.mark.slow
def test_a_real_run_ends_in_its_own_words(schedules: EmbeddedSchedules, database: Database, tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(weekly().config().model_dump(mode="json")), encoding="utf-8")
    schedules.set(weekly(preset=str(file)))
    file.unlink()
    keeper = keeper_of(database, lambda *given: RunProcess(*given, tmp_path / "runs"), Clock(SUNDAY + PUNCTUAL * 20))
    keeper.tick()
    (run,) = schedules.runs("weekly")
    assert run.outcome == "running" and run.pid is not None and os.getsid(run.pid) == run.pid
    until(lambda: keeper.tick() or schedules.runs("weekly")[0].outcome != "running", "the end of a run")
    (run,) = schedules.runs("weekly")
    assert run.outcome == "failed"
    assert run.detail.startswith(f"Error: Cannot read the configuration {file}")
    assert run.log.startswith(str(tmp_path / "runs" / "schedule" / "weekly")) and Path(run.log).exists()


@pytest.mark.slow
def test_a_database_that_goes_away_is_asked_again(
    server: Postgres, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(VARIABLE, server.url)
    database, clock, run = opened(tmp_path), Clock(SUNDAY), Told()
    schedules = EmbeddedSchedules(database, clock)
    schedules.set(weekly("outage"))
    keeper = keeper_of(database, lambda *_: run, clock)
    clock.turn(minutes=31)
    keeper.tick()
    server.stop()
    try:
        run.end = ("succeeded", "")
        with pytest.raises(StoreError) as caught:
            keeper.tick()
        assert server.password not in str(caught.value) and f"127.0.0.1:{server.port}" in str(caught.value)
        assert not run.stopped, "the run goes on"
    finally:
        server.start()
    keeper.tick()
    assert outcomes(schedules, "outage") == [("22 02:00", "succeeded")]
    database.close()


def test_nothing_in_the_tables_is_code(tmp_path: Path) -> None:
    database = opened(tmp_path)
    EmbeddedSchedules(database, Clock(SUNDAY)).set(weekly(overrides=("arc.steps=7",)))
    with database.transaction() as connection:
        columns = connection.execute(text("select overrides, typeof(overrides), next_fire from sonarc_schedules")).one()
    assert columns == ('["arc.steps=7"]', "text", "2026-03-22 02:00:00.000000")


def test_a_day_at_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("SONARC_CACHE", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "300")

    def said(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["schedule", *arguments])
        return result.exit_code, result.output

    code, words = said("set", "weekly", "--cron", "0 3 * * SUN", "-z", "Europe/Berlin", "-p", "ci", "-s", "arc.steps=7")
    assert code == 0 and words.startswith("weekly fires next at Sun ") and " 03:00 CE" in words
    code, words = said("set", "No!", "--cron", "0 3 * * SUN")
    assert code == 2 and "name" in words and "'No!'" in words
    code, words = said("list")
    assert code == 0 and "ci arc.steps=7" in words and "Nobody keeps them" in words
    assert said("pause", "weekly") == (0, "weekly is paused.\n")
    assert "paused" in said("list")[1]
    assert said("resume", "weekly")[1].startswith("weekly fires next at Sun ")
    assert said("runs", "weekly") == (0, "It has not fired yet.\n")
    assert said("delete", "weekly") == (0, "weekly is deleted.\n")
    assert said("delete", "weekly")[0] == 2
    assert "No schedule is set" in said("list")[1]


@pytest.mark.slow
def test_the_keeper_ends_cleanly_when_told_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("SONARC_CACHE", str(tmp_path))
    database = opened(tmp_path)
    schedules = EmbeddedSchedules(database, Clock(SUNDAY))
    schedules.set(weekly())
    with (tmp_path / "said").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "pipelines.cli", "schedule", "serve", "--runs", str(tmp_path / "runs")],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        until(lambda: process.poll() is not None or any(run.pid for run in schedules.unfinished()), "a run")
        (run,) = schedules.unfinished()
        time.sleep(2)
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 130, (tmp_path / "said").read_text()
    finally:
        process.kill()
    assert run.pid is not None and not psutil.pid_exists(run.pid)
    assert schedules.runs("weekly")[0].detail == "Ended: its keeper was stopped."
    (state,) = schedules.list()
    assert isinstance(state, ScheduleState) and state.next_fire is not None
    assert state.next_fire > datetime.now(UTC) - timedelta(minutes=1)
