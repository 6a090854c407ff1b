"""What crashes, hangs or fails in a process of its own costs no more than itself."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pytest

from sonarc.audio.refusal import Refused
from sonarc.contracts.dataset import Reason
from sonarc.data.isolated import Isolated


@pytest.fixture
def isolated() -> Iterator[Isolated]:
    found = Isolated(5.0)
    yield found
    found.close()


def where(number: int) -> tuple[int, int]:
    return number, os.getpid()


def crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def hang() -> None:
    time.sleep(60)


def refuse() -> None:
    raise Refused(Reason.SILENT, "it is silent")


def test_work_is_done_in_one_other_process(isolated: Isolated) -> None:
    (one, first), (two, second) = isolated(where, 1), isolated(where, 2)
    assert (one, two) == (1, 2)
    assert first == second != os.getpid()


def test_a_crash_costs_itself(isolated: Isolated) -> None:
    _, before = isolated(where, 0)
    with pytest.raises(Refused, match="died") as caught:
        isolated(crash)
    assert caught.value.reason is Reason.CRASHED
    number, after = isolated(where, 3)
    assert number == 3 and after != before


def test_what_hangs_is_ended() -> None:
    impatient = Isolated(3.0)
    try:
        with pytest.raises(Refused, match="more than 3 s"):
            impatient(hang)
        assert impatient(where, 1)[0] == 1
    finally:
        impatient.close()


def test_what_the_work_imports_counts_against_no_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path(tmp_path, "slow_over_there.py").write_text(
        "import multiprocessing, time\n"
        "if multiprocessing.parent_process():\n"
        "    time.sleep(4)\n"
        "def work():\n"
        "    return 'done'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    isolated = Isolated(3.0)
    try:
        assert isolated(importlib.import_module("slow_over_there").work) == "done"
    finally:
        isolated.close()


def test_it_does_not_outlive_a_killed_parent() -> None:
    code = (
        "import os, sys, time\n"
        "from sonarc.data.isolated import Isolated\n"
        "if __name__ == '__main__':\n"
        "    print(Isolated(5)(os.getpid), flush=True)\n"
        "    time.sleep(60)\n"
    )
    with TemporaryDirectory() as folder:
        main = Path(folder, "parent.py")  # a process that is spawned looks for its parent's main module
        main.write_text(code)
        with subprocess.Popen([sys.executable, str(main)], stdout=subprocess.PIPE, text=True) as parent:
            assert parent.stdout is not None
            child = psutil.Process(int(parent.stdout.readline()))
            parent.kill()
    child.wait(10)


def test_an_error_comes_through_whole(isolated: Isolated) -> None:
    with pytest.raises(Refused) as caught:
        isolated(refuse)
    assert (caught.value.reason, caught.value.detail) == (Reason.SILENT, "it is silent")
