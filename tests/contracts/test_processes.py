"""Ending what was started, and nothing else."""

from __future__ import annotations

import subprocess
import sys
import time

import psutil

from sonarc.contracts.processes import end_tree

FAMILY = """
import subprocess, sys, time
stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
child = subprocess.Popen([sys.executable, "-c", stubborn])
print(child.pid, flush=True)
time.sleep(60)
"""


def test_a_tree_ends_with_the_child_that_ignores_sigterm(monkeypatch) -> None:
    monkeypatch.setattr("sonarc.contracts.processes.STOP_SECONDS", 1.0)
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    parent = subprocess.Popen([sys.executable, "-c", FAMILY], stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        time.sleep(0.3)
        end_tree(parent.pid)
        parent.wait(5)
        assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_a_process_that_goes_while_it_is_looked_at_is_no_error(monkeypatch) -> None:
    parent = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    children = psutil.Process.children

    def gone_by_then(self: psutil.Process, recursive: bool = False) -> list[psutil.Process]:
        brief = subprocess.Popen([sys.executable, "-c", ""])
        found = [*children(self, recursive), psutil.Process(brief.pid)]
        brief.wait()
        return found

    monkeypatch.setattr(psutil.Process, "children", gone_by_then)
    end_tree(parent.pid)
    parent.wait(5)
    assert not psutil.pid_exists(parent.pid)
