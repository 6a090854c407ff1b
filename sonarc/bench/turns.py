"""Trainings that take turns: all live, but only those whose turn it is may run, the others' processes are stopped.

So two ways of training are timed within seconds of each other, and what else a machine does weighs on both alike.
Ray's own processes stop with their training: a bare one has the machine as if there were no Ray.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import psutil

from sonarc.bench.cluster import until
from sonarc.bench.timed import read_notes

PATIENCE = 900.0
WARM_STEPS = 3


@dataclass(frozen=True)
class Player:
    """A training that runs and notes its steps.

    Attributes:
        members: all its processes.
    """

    notes: Path
    members: Callable[[], list[psutil.Process]]

    def steps(self) -> list[tuple[int, float]]:
        """What it has noted."""
        return read_notes(self.notes)

    def wait(self, more: int) -> None:
        """Return once it has noted so many more steps."""
        wanted = len(self.steps()) + more
        until(lambda: len(self.steps()) >= wanted, f"{more} steps of {self.notes.stem}", PATIENCE)

    def stop(self) -> None:
        """Stop its processes where they are."""
        for process in self.members():
            with contextlib.suppress(psutil.Error):
                process.suspend()

    def go(self) -> None:
        """Let them go on."""
        for process in self.members():
            with contextlib.suppress(psutil.Error):
                process.resume()


@contextmanager
def at_the_table(players: Mapping[str, Callable[[], Player]]) -> Iterator[dict[str, Player]]:
    """Start the players one after the other; each is stopped once it is warm. At the end all may go on, to be ended."""
    seated: dict[str, Player] = {}
    try:
        for name, start in players.items():
            seated[name] = start()
            seated[name].wait(WARM_STEPS)
            seated[name].stop()
        yield seated
    finally:
        for player in seated.values():
            player.go()


def take_turns(
    players: Mapping[str, Player], hands: Sequence[tuple[str, ...]], steps: int, rounds: int
) -> dict[tuple[str, ...], list[float]]:
    """Seconds a step of the first player of each hand, one figure a round.

    Args:
        hands: who may run together; each has a turn in every round.
        steps: whole steps of a turn; the one that the turn before had broken off comes on top, and is not counted.
    """
    found: dict[tuple[str, ...], list[float]] = {hand: [] for hand in hands}
    for _ in range(rounds):
        for hand in hands:
            known = len(players[hand[0]].steps())
            for name in hand:
                players[name].go()
            players[hand[0]].wait(steps + 1)
            for name in hand:
                players[name].stop()
            clocks = [clock for _, clock in players[hand[0]].steps()[known : known + steps + 1]]
            seconds = [after - before for before, after in pairwise(clocks)]
            found[hand].append(sum(seconds) / len(seconds))
    return found
