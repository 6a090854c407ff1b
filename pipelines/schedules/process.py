"""A scheduled run: `sonarc run` as a process of its own, ended with all it started."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from pipelines.local import FIRE_VARIABLE, SCHEDULE_VARIABLE
from pipelines.schedules.embedded import ScheduledRun
from pipelines.schedules.model import Outcome, Schedule
from sonarc.contracts.errors import GateRefused, NothingNew
from sonarc.contracts.processes import began, end_tree

PATIENCE_SECONDS = 60.0
"""For a run that is told to end to end what it started, and to say so in MLflow."""
DETAIL = 500  # characters of what a run said last
OUTCOMES: dict[int, Outcome] = {0: "succeeded", GateRefused.exit_code: "refused", NothingNew.exit_code: "nothing_new"}
"""Exit code → outcome; any other is a failure."""


class RunProcess:
    """A run that goes on.

    Attributes:
        pid: leader of the session of all it starts.
        began: when that process was created, seconds since 1970.
        log: what it prints.
    """

    def __init__(self, schedule: Schedule, run: ScheduledRun, runs: Path) -> None:
        folder = runs / "schedule" / schedule.name
        folder.mkdir(parents=True, exist_ok=True)
        self.log = str(folder / f"{run.due:%Y%m%dT%H%MZ}-{run.id}.log")
        given = [part for override in schedule.settings() for part in ("--set", override)]
        command = [sys.executable, "-m", "pipelines.cli", "run", "--quiet", "--preset", schedule.preset, *given]
        told = {SCHEDULE_VARIABLE: schedule.name, FIRE_VARIABLE: run.due.isoformat()}
        with Path(self.log).open("ab") as output:
            self._process = subprocess.Popen(
                [*command, "--runs", str(runs)],
                env=os.environ | told,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.pid, self.began = self._process.pid, began(self._process.pid)

    def ended(self) -> tuple[Outcome, str] | None:
        """How it ended, and what it said last; None while it goes on."""
        code = self._process.poll()
        if code is None:
            return None
        outcome = OUTCOMES.get(code, "failed")
        return outcome, "" if outcome == "succeeded" else last_words(Path(self.log)) or f"It ended with code {code}."

    def stop(self) -> None:
        """End it: politely at first, so that it can end the rest itself; then the whole tree."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(PATIENCE_SECONDS)
            end_tree(self.pid)
            self._process.wait()


def end_orphan(run: ScheduledRun) -> bool:
    """End the process of a run whose keeper died, if it lives on this machine; whether it did."""
    if run.host != platform.node() or run.pid is None or run.began is None or began(run.pid) != run.began:
        return False
    end_tree(run.pid)
    return True


def last_words(log: Path) -> str:
    """The end of what a run printed."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:  # somebody tidied up
        return ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [number for number, line in enumerate(lines) if line.startswith(("Error:", "Nothing new"))]
    return " ".join(lines[errors[-1] :] if errors else lines[-2:])[:DETAIL]
