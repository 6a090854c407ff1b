"""Services that are kept: their order, when they are ready, how they end; with toy services of this Python."""

from __future__ import annotations

import json
import os
import signal
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from infra.stack.ports import USUAL, ports_of
from infra.stack.programs import program, require_entry
from infra.stack.secret_files import SecretFiles
from infra.stack.service import Service
from infra.stack.supervisor import Supervisor, running
from sonarc.contracts.errors import ConfigError, StageError
from sonarc.contracts.processes import end_tree

KEEPS = "open({ready!r}, 'w').close(); print('at work', flush=True); import time; time.sleep(600)"
DIES = "print('no room\\nfor {name}', flush=True); raise SystemExit(3)"
HANGS = "print('thinking', flush=True); import time; time.sleep(600)"
PARENT = (
    "import subprocess, sys, time; child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); "
    "open({ready!r}, 'w').write(str(child.pid)); time.sleep(600)"
)


@dataclass
class Toys:
    """Services in a folder, and what they did in which order."""

    folder: Path
    done: list[str] = field(default_factory=list)

    def service(self, name: str, code: str = KEEPS, **options: object) -> Service:
        """One that runs `code`, and is ready once it has written its file."""
        ready = self.folder / f"{name}.ready"
        said: dict[str, Callable[[], None]] = {
            act: lambda act=act: self.done.append(f"{act} {name}")  # type: ignore[misc]
            for act in ("prepare", "settle", "ended")
        }
        given = {"patience": 60.0, "grace": 5.0, **said, **options}
        command = (sys.executable, "-S", "-c", code.format(ready=str(ready), name=name))
        return Service(name, command, ready.exists, dict(os.environ), **given)  # type: ignore[arg-type]

    def supervisor(self, *services: Service) -> Supervisor:
        """Of these services; what it says is kept in `done`."""
        return Supervisor(self.folder, services, self.done.append)

    def pid(self, name: str) -> int:
        """A service's process."""
        pid: int = json.loads((self.folder / "run" / f"{name}.json").read_text())["pid"]
        return pid


@pytest.fixture
def toys(tmp_path: Path) -> Iterator[Toys]:
    yield Toys(tmp_path)
    for record in (tmp_path / "run").glob("*.json"):
        end_tree(json.loads(record.read_text())["pid"])


def test_services_start_in_order_and_end_in_reverse(toys: Toys) -> None:
    kept = toys.supervisor(toys.service("first"), toys.service("second"))
    assert kept.up() == ["first", "second"]
    acts = [said for said in toys.done if said.split()[0] in ("prepare", "settle")]
    assert acts == ["prepare first", "settle first", "prepare second", "settle second"]
    assert [found.state for found in kept.status()] == ["running", "running"]
    assert running(toys.folder)
    pids = [toys.pid("first"), toys.pid("second")]
    toys.done.clear()
    assert kept.down() == ["second", "first"]
    assert toys.done == ["second: ending", "ended second", "first: ending", "ended first"]
    assert not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in pids)
    assert [found.state for found in kept.status()] == ["stopped", "stopped"] and not running(toys.folder)
    assert kept.down() == []


def test_up_again_finds_what_runs_and_starts_what_died(toys: Toys) -> None:
    kept = toys.supervisor(toys.service("first"), toys.service("second"))
    kept.up()
    first, second = toys.pid("first"), toys.pid("second")
    psutil.Process(second).kill()
    psutil.wait_procs([psutil.Process(second)], timeout=10)
    states = {found.service.name: found for found in kept.status()}
    assert states["first"].state == "running" and states["first"].pid == first
    assert states["second"].state == "died" and states["second"].log_tail == "at work"
    toys.done.clear()
    assert toys.supervisor(toys.service("first"), toys.service("second")).up() == ["second"]
    assert toys.pid("first") == first and toys.pid("second") != second
    assert "settle first" not in toys.done and "settle second" in toys.done


def test_one_that_dies_is_told_with_the_end_of_its_log_and_those_before_it_stay(toys: Toys) -> None:
    kept = toys.supervisor(toys.service("first"), toys.service("second", DIES), toys.service("third"))
    with pytest.raises(StageError, match=r"second ended before it was ready") as caught:
        kept.up()
    assert caught.value.hint.endswith("no room\nfor second")
    assert [found.state for found in kept.status()] == ["running", "died", "stopped"]
    assert kept.down() == ["first"]


def test_one_that_is_not_ready_in_time_is_ended(toys: Toys) -> None:
    kept = toys.supervisor(toys.service("slow", HANGS, patience=0.5))
    with pytest.raises(StageError, match=r"slow was not ready after 0 s"):
        kept.up()
    assert kept.status()[0].state == "died" and not psutil.pid_exists(toys.pid("slow"))


def test_what_follows_readiness_is_done_again_if_it_broke_off(toys: Toys) -> None:
    def breaks() -> None:
        raise StageError("The accounts could not be made.")

    with pytest.raises(StageError, match=r"accounts"):
        toys.supervisor(toys.service("one", settle=breaks)).up()
    assert toys.supervisor(toys.service("one")).up() == []
    assert "settle one" in toys.done


def test_one_whose_start_was_killed_is_waited_for_before_it_is_settled(toys: Toys) -> None:
    late = "import time; time.sleep(1); " + KEEPS
    one = toys.service("one", late)
    record = toys.supervisor(one)._start(one, None)  # as far as an `up` got that was killed
    toys.done.clear()
    settled_when_ready = toys.service("one", late, settle=lambda: toys.done.append(f"ready {one.ready()}"))
    assert toys.supervisor(settled_when_ready).up() == []
    assert "ready True" in toys.done and toys.pid("one") == record.pid


def test_what_a_service_started_ends_with_it(toys: Toys) -> None:
    kept = toys.supervisor(toys.service("parent", PARENT))
    kept.up()
    while not (child := (toys.folder / "parent.ready").read_text()):
        pass
    os.kill(toys.pid("parent"), signal.SIGKILL)  # its child is an orphan now
    kept.down()
    assert not psutil.pid_exists(int(child)) or psutil.Process(int(child)).status() == "zombie"


def test_another_process_with_a_recorded_pid_is_let_be(toys: Toys) -> None:
    kept = toys.supervisor(toys.service("one"))
    (toys.folder / "run" / "one.json").write_text(json.dumps({"pid": os.getpid(), "began": 1.0, "settled": True}))
    assert kept.status()[0].state == "died"
    assert kept.down() == []
    assert kept.status()[0].state == "stopped"


def test_a_secret_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    secrets = SecretFiles(tmp_path / "secrets")
    value = secrets.value("accounts/pipeline/password")
    assert len(value) == 48 and secrets.value("accounts/pipeline/password") == value
    assert secrets.value("other") != value
    path = secrets.path("accounts/pipeline/password")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for folder in (path.parent, secrets.folder):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_ports_stay_and_move_only_while_nothing_runs(tmp_path: Path) -> None:
    chosen = ports_of(tmp_path)
    assert set(chosen) == set(USUAL) and len(set(chosen.values())) == len(chosen)
    assert ports_of(tmp_path, running=True) == chosen
    assert ports_of(tmp_path, {"mlflow": 5_999})["mlflow"] == 5_999
    with pytest.raises(ConfigError, match=r"port of mlflow cannot change"):
        ports_of(tmp_path, {"mlflow": 5_998}, running=True)
    with pytest.raises(ConfigError, match=r"no port 'mlfow'"):
        ports_of(tmp_path, {"mlfow": 5_998})
    with pytest.raises(ConfigError, match=r"port 18420 of endpoint may be one of Ray's workers'"):
        ports_of(tmp_path, {"endpoint": 18_420})
    with pytest.raises(ConfigError, match=r"one port"):
        ports_of(tmp_path, {"ray": 5_999})


def test_a_missing_program_is_named_with_what_to_install() -> None:
    with pytest.raises(ConfigError, match=r"program prometheuss is missing") as caught:
        program("prometheuss", "apt-get install prometheus")
    assert "apt-get install prometheus" in caught.value.hint


def test_a_folder_that_postgresql_may_not_enter_is_told(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    (closed / "postgres").mkdir(parents=True)
    closed.chmod(0o700)
    with pytest.raises(ConfigError, match=r"may not enter"):
        require_entry(closed / "postgres", {"user": os.getuid() + 1})
    require_entry(closed / "postgres", {})
