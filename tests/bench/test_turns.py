"""Trainings that take turns: whoever waits does not move, and each is timed while it runs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from sonarc.bench.timed import read_notes
from sonarc.bench.turns import Player, at_the_table, take_turns

PROGRAM = """
import sys, time
step = 0
with open(sys.argv[1], "a", buffering=1) as notes:
    while True:
        time.sleep(float(sys.argv[2]))
        step += 1
        notes.write(f"{step} {time.monotonic()}\\n")
"""


@pytest.fixture
def running() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def player(notes: Path, seconds: float, running: ExitStack) -> Callable[[], Player]:
    def start() -> Player:
        process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(notes), str(seconds)])
        running.callback(process.wait)
        running.callback(process.kill)
        return Player(notes, lambda: [psutil.Process(process.pid)])

    return start


def test_each_is_timed_in_its_turn_and_waits_in_the_others(tmp_path: Path, running: ExitStack) -> None:
    quick, slow = tmp_path / "quick", tmp_path / "slow"
    with at_the_table({"quick": player(quick, 0.02, running), "slow": player(slow, 0.1, running)}) as seated:
        before = len(read_notes(quick))
        assert before >= 3
        found = take_turns(seated, [("slow",)], steps=3, rounds=1)
        assert len(read_notes(quick)) == before, "it moved out of turn"
        found |= take_turns(seated, [("quick",), ("quick", "slow")], steps=3, rounds=2)
    assert [len(seconds) for seconds in found.values()] == [1, 2, 2]
    assert min(found["slow",]) >= 0.1 > 0.02 <= min(found["quick",] + found["quick", "slow"])


def test_a_line_that_is_being_written_is_no_note(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    assert read_notes(notes) == []
    notes.write_text("1 10.5\n2 11.25\n3", encoding="ascii")
    assert read_notes(notes) == [(1, 10.5), (2, 11.25)]
