"""One study and many coordinators, in a file or a real PostgreSQL: every trial is measured once, whoever dies."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import optuna
import pytest
from coordinator import BEAT, bowl, notes, search, searched, start
from postgres import Postgres, postgres
from ray_cluster import until

from sonarc.contracts.errors import ConfigError, StageError, StoreError
from sonarc.tuning import storage
from sonarc.tuning.ledger import Ledger
from sonarc.tuning.results import Measured, diverged
from sonarc.tuning.storage import GRACE_BEATS, VARIABLE, alone, place_of

GRACE = GRACE_BEATS * BEAT
_names = count()


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres() as found:
        yield found


@pytest.fixture(params=["file", pytest.param("PostgreSQL", marks=pytest.mark.slow)])
def anywhere(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a study of one's own, in a file or in the server."""
    if request.param == "file":
        monkeypatch.delenv(VARIABLE, raising=False)
    else:
        monkeypatch.setenv(VARIABLE, request.getfixturevalue("server").url)
    return f"study-{next(_names)}"


@pytest.fixture
def study(server: Postgres, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a study of one's own in the server."""
    monkeypatch.setenv(VARIABLE, server.url)
    return f"study-{next(_names)}"


Opened = Callable[..., Ledger]


@contextmanager
def _opening(study: str, folder: Path) -> Iterator[Opened]:
    ledgers: list[Ledger] = []

    def open_one(*overrides: str) -> Ledger:
        ledgers.append(Ledger(place_of(folder), study, searched(*overrides)))
        return ledgers[-1]

    yield open_one
    for ledger in ledgers:
        ledger.close()


@pytest.fixture
def opened_anywhere(anywhere: str, tmp_path: Path) -> Iterator[Opened]:
    with _opening(anywhere, tmp_path) as found:
        yield found


@pytest.fixture
def opened(study: str, tmp_path: Path) -> Iterator[Opened]:
    with _opening(study, tmp_path) as found:
        yield found


@pytest.mark.slow
def test_two_coordinators_measure_every_trial_once(study: str, tmp_path: Path) -> None:
    places = [tmp_path / name for name in ("one", "other")]
    for place in places:
        place.mkdir()
    both = [start(place, study, "tune.trials=12") for place in places]
    assert [process.wait(120) for process in both] == [0, 0], [(p / "output").read_text() for p in places]

    lines = [line for place in places for line in notes(place, "measured")]
    assert sorted(lines) == sorted(f"measured {n}" for n in range(12))
    ledger = Ledger(place_of(tmp_path), study, searched("tune.trials=12"))
    assert [trial.number for trial in ledger.trials()] == list(range(12)) and ledger.finished()
    assert ledger.claim() is None
    ledger.close()


@pytest.mark.slow
def test_coordinators_that_begin_together_queue_no_trial_twice(opened: Opened, tmp_path: Path) -> None:
    gate, found = threading.Barrier(4), []

    def begin() -> None:
        gate.wait()
        found.append(search(opened("tune.trials=6"), tmp_path))

    threads = [threading.Thread(target=begin) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert sorted(notes(tmp_path, "measured")) == [f"measured {n}" for n in range(6)]
    assert len(found) == 4 and all(trials == found[0] for trials in found)


def test_a_killed_coordinator_loses_and_doubles_no_trial(anywhere: str, tmp_path: Path) -> None:
    hold = tmp_path / "hold"
    first = start(tmp_path, anywhere, "tune.trials=4")
    until(lambda: len(notes(tmp_path, "measured")) >= 1, "a trial")
    hold.touch()
    time.sleep(1.0)  # for the trial that did not see it
    until(lambda: len(notes(tmp_path, "began")) > len(notes(tmp_path, "measured")), "a trial to be killed in")
    os.kill(first.pid, signal.SIGKILL)
    first.wait(20)
    measured = notes(tmp_path, "measured")
    assert len(measured) < 4
    hold.unlink()

    second = start(tmp_path, anywhere, "tune.trials=4")
    assert second.wait(120) == 0, (tmp_path / "output").read_text()
    assert sorted(notes(tmp_path, "measured")) == [f"measured {n}" for n in range(4)]
    assert len(notes(tmp_path, "began")) == 5, "the killed trial began twice, all others once"
    ledger = Ledger(place_of(tmp_path), anywhere, searched("tune.trials=4"))
    resumed = ledger.trials()
    ledger.close()
    assert [trial.number for trial in resumed] == list(range(4))
    if place_of(tmp_path).shared:
        return  # the dead trial is missed only after a while, and the next ones are asked without it
    whole = Ledger(place_of(tmp_path), f"{anywhere}-whole", searched("tune.trials=4"))
    assert search(whole, tmp_path) == resumed, "the resumed search asked other questions than an undisturbed one"
    whole.close()


@pytest.mark.slow
def test_what_dies_with_its_coordinator_twice_is_given_up(study: str, tmp_path: Path) -> None:
    (tmp_path / "hold").touch()
    for attempt in (1, 2):
        process = start(tmp_path, study, "tune.trials=2")
        until(lambda: len(notes(tmp_path, "began 0")) == attempt, f"attempt {attempt}")  # noqa: B023
        os.kill(process.pid, signal.SIGKILL)
        process.wait(20)
        if attempt == 1:
            # A second coordinator claims trial 1 unless trial 0 is back in the queue.
            _wait_for_requeue(tmp_path, study)
    (tmp_path / "hold").unlink()
    ledger = Ledger(place_of(tmp_path), study, searched("tune.trials=2"))
    found = search(ledger, tmp_path)
    ledger.close()
    assert [trial.failed for trial in found] == [True, False]
    assert notes(tmp_path, "began 0") == ["began 0"] * 2
    assert notes(tmp_path, "measured") == ["measured 1"]


def _wait_for_requeue(folder: Path, study: str) -> None:
    ledger = Ledger(place_of(folder), study, searched("tune.trials=2"))
    states = {trial.number: trial for trial in ledger._study.get_trials()}

    def requeued() -> bool:
        ledger.retry_lost()
        return len(ledger._study.get_trials()) > len(states)

    until(requeued, "the dead trial to be queued again")
    ledger.close()


@pytest.mark.slow
def test_a_trial_that_takes_longer_than_the_grace_period_lives(opened: Opened) -> None:
    ours, theirs = opened("tune.trials=1"), opened("tune.trials=1")
    claimed = ours.claim()
    assert claimed is not None
    ends = time.monotonic() + GRACE + 2 * BEAT
    while time.monotonic() < ends:
        theirs.retry_lost()
        assert theirs.claim() is None
        time.sleep(0.2)
    assert ours.tell(claimed, bowl(claimed.weights))
    assert [trial.failed for trial in theirs.trials()] == [False]


@pytest.mark.slow
def test_what_was_given_up_does_not_count_when_it_comes_back(opened: Opened) -> None:
    ours, theirs = opened("tune.trials=1"), opened("tune.trials=1")
    slept = ours.claim()
    assert slept is not None
    ours._beating.clear()  # as of a machine that sleeps
    until(lambda: theirs.retry_lost() or theirs.finished() or _waits(theirs), "the trial to be given up")
    again = theirs.claim()
    assert again is not None and again.weights == slept.weights
    assert not ours.tell(slept, Measured(0.0, 1.0))
    assert ours.report(slept, 1, 0.0), "it is told to stop"
    assert theirs.tell(again, bowl(again.weights))
    (trial,) = theirs.trials()
    assert trial.frechet == bowl(again.weights).frechet


def _waits(ledger: Ledger) -> bool:
    return any(trial.state == optuna.trial.TrialState.WAITING for trial in ledger._study.get_trials())


@pytest.mark.slow
def test_a_coordinator_that_died_after_measuring_has_not_lost_it(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def killed(*_: object) -> None:
        raise Killed

    ours, theirs = opened("tune.trials=1"), opened("tune.trials=1")
    claimed = ours.claim()
    assert claimed is not None
    monkeypatch.setattr(ours, "_finish", killed)
    with pytest.raises(Killed):
        ours.tell(claimed, bowl(claimed.weights))
    until(lambda: theirs.retry_lost() or _waits(theirs), "the trial to be given up")
    assert theirs.claim() is None, "it is measured already"
    assert theirs.finished()
    assert theirs.trials()[0].frechet == bowl(claimed.weights).frechet


def test_a_trial_that_was_interrupted_goes_back_into_the_queue(opened_anywhere: Opened) -> None:
    ledger = opened_anywhere("tune.trials=1")
    for _ in range(3):  # an interrupt is no death, and may come any number of times
        claimed = ledger.claim()
        assert claimed is not None and claimed.number == 0
        ledger.release(claimed)
    claimed = ledger.claim()
    assert claimed is not None
    assert ledger.tell(claimed, bowl(claimed.weights)) and ledger.finished()


def test_what_is_not_finite_fails(opened_anywhere: Opened) -> None:
    ledger = opened_anywhere("tune.trials=3", 'tune.objectives=["frechet","adherence","diversity"]')
    for measured in (
        Measured(1.0, 0.5, {}, (1.0,) * 50, 0.3),
        Measured(float("inf"), 0.5, {}, (1.0,) * 50, 0.3),
        Measured(1.0, 0.5, {}, (1.0,) * 50, float("nan")),
    ):
        claimed = ledger.claim()
        assert claimed is not None
        ledger.tell(claimed, measured)
    assert [trial.failed for trial in ledger.trials()] == [False, True, True]
    assert [trial.state.name for trial in ledger._study.get_trials()] == ["COMPLETE", "FAIL", "FAIL"]


def test_a_trial_above_the_median_at_a_rung_stops_and_the_default_never_does(opened_anywhere: Opened) -> None:
    ledger = opened_anywhere("tune.trials=4", "tune.steps=10", "tune.rungs=1")
    said = []
    for distance in (9.0, 5.0, 6.0, 8.0):
        claimed = ledger.claim()
        assert claimed is not None
        said.append(ledger.report(claimed, 5, distance))
        ledger.tell(claimed, diverged(stopped=True) if said[-1] else bowl(claimed.weights))
    assert said == [False, False, False, True]
    trials = ledger.trials()
    assert [trial.stopped for trial in trials] == said and not any(trial.failed for trial in trials)
    assert trials[3].rungs == {5: 8.0}


def test_another_space_is_refused(opened_anywhere: Opened) -> None:
    opened_anywhere("tune.trials=1")
    with pytest.raises(ConfigError, match=r"begun in another space.*'penalty_weight': \[0\.0, 1\.0\]"):
        opened_anywhere("tune.trials=1", "tune.penalty_weight=[0, 9]")
    with pytest.raises(ConfigError, match=r"begun for other objectives: \['frechet'\]"):
        opened_anywhere("tune.trials=1", 'tune.objectives=["frechet","adherence"]')


def test_a_file_has_one_coordinator(tmp_path: Path) -> None:
    another = pytest.raises(StageError, match=r"Another process is searching in .*SONARC_TUNE_STORAGE=")
    with alone(tmp_path), another, alone(tmp_path):
        raise AssertionError("two at once")
    with alone(tmp_path):
        pass


@pytest.mark.slow
def test_a_wrong_password_is_told_without_it(
    server: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = "s3cr%40t{wrong}"
    monkeypatch.setenv(VARIABLE, server.url.replace(server.password, wrong))
    with pytest.raises(StoreError, match="password authentication failed") as caught:
        Ledger(place_of(tmp_path), "x", searched())
    place = place_of(tmp_path)
    shown = " ".join([str(caught.value), caught.value.hint, caplog.text, repr(place), server.log])
    assert f"postgresql://sonarc@127.0.0.1:{server.port}/tune" in str(caught.value)
    assert "s3cr" not in shown and "wrong" not in shown and caught.value.__cause__ is None


@pytest.mark.parametrize("text", ["s3cret", "postgresql://u:s3cret@h:port/d", "mysql://u:s3cret@h/d",
                                  "postgresql://u:s3cret@h", "postgresql://u:p@s3cret@h/d"])  # fmt: skip
def test_what_is_no_url_is_refused_without_being_repeated(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, text)
    with pytest.raises(ConfigError, match="SONARC_TUNE_STORAGE") as caught:
        place_of(tmp_path)
    assert "s3cret" not in str(caught.value) and caught.value.__cause__ is None


def test_a_server_that_is_not_there_is_an_error_within_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "OPENING_SECONDS", 0.5)
    monkeypatch.setenv(VARIABLE, "postgresql://sonarc:s3cret@127.0.0.1:1/tune")
    begun = time.monotonic()
    with pytest.raises(StoreError, match=r"127\.0\.0\.1:1/tune cannot be used: .*refused"):
        Ledger(place_of(tmp_path), "x", searched())
    assert time.monotonic() - begun < 10


@pytest.mark.slow
def test_a_server_that_dies_and_comes_back_delays_the_search(
    server: Postgres, opened: Opened, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = opened("tune.trials=3")
    claimed = ledger.claim()
    assert claimed is not None
    server.stop()
    back = threading.Timer(1.5, server.start)
    back.start()
    assert ledger.tell(claimed, bowl(claimed.weights))
    back.join()
    assert "does not answer" in caplog.text
    while (claimed := ledger.claim()) is not None:
        ledger.tell(claimed, bowl(claimed.weights))
    assert [trial.failed for trial in ledger.trials()] == [False] * 3


@pytest.mark.slow
def test_a_server_that_stays_away_ends_the_search_and_what_was_measured_is_kept(
    server: Postgres, opened: Opened
) -> None:
    ledger = opened("tune.trials=3", "compute.tune_patience=1")
    for _ in range(2):
        claimed = ledger.claim()
        assert claimed is not None
        ledger.tell(claimed, bowl(claimed.weights))
    claimed = ledger.claim()
    assert claimed is not None
    server.stop()
    try:
        begun = time.monotonic()
        with pytest.raises(StoreError, match="cannot be used"):
            ledger.tell(claimed, bowl(claimed.weights))
        ledger.release(claimed)
        assert time.monotonic() - begun < 20
    finally:
        server.start()
    assert [trial.number for trial in opened("tune.trials=3").trials()] == [0, 1]
