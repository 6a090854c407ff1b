"""What a supervised server writes down, and which processes are its own. No ray, no torch.

`serve.json` is the server's: how it stands. `serve.desired.json` is the deployer's: what it should serve.
"""

from __future__ import annotations

import fcntl
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import psutil
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sonarc.contracts import store
from sonarc.contracts.config import ServeConfig
from sonarc.contracts.errors import ServingError, StoreError

STATE, DESIRED, LOG, STARTING = "serve.json", "serve.desired.json", "serve.log", "serve.starting"
STANDING = "serve.standing.json"
MARKER = "SONARC_SERVE_ID"
"""Environment variable that every process of one server inherits: whoever carries it is ours."""


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class ServedModel(_Document):
    """The package to serve, and its name in the registry."""

    package_uri: str
    package_sha256: str
    model: str = "sonarc"
    version: str = "0"


class Lineup(_Document):
    """The packages a server holds."""

    champion: ServedModel
    candidate: ServedModel | None = None
    """Gets the traffic that the settings give it; None: nothing is being tried."""


class Source(_Document):
    """The registry whose aliases the server follows."""

    tracking: str
    """A tracking server or `sqlite:///<file>`; credentials come from the environment."""
    store: str
    model: str
    alias: str
    candidate_alias: str


class Desired(_Document):
    """`serve.desired.json`."""

    schema_: Literal["sonarc.serve.desired/1"] = Field(default="sonarc.serve.desired/1", alias="schema")
    attempt: str
    """Names this wish: a package that was refused may be wished for again, with mended files."""
    served: ServedModel
    candidate: ServedModel | None = None
    source: Source | None = None
    config: ServeConfig

    @property
    def lineup(self) -> Lineup:
        """The packages it names."""
        return Lineup(champion=self.served, candidate=self.candidate)


class ServerProcess(_Document):
    """One process of the server."""

    pid: int
    started: float
    """Unix time it was created, seconds: with the pid it names a process for good."""
    name: str


class ServeState(_Document):
    """`serve.json`: written when the server is ready, and again after every swap."""

    schema_: Literal["sonarc.serve/1"] = Field(default="sonarc.serve/1", alias="schema")
    id: str
    """Value of `MARKER` in the environment of every process of this server."""
    pid: int
    """The supervisor."""
    pgid: int
    processes: tuple[ServerProcess, ...]
    address: str
    """`http://host:port`."""
    served: ServedModel
    candidate: ServedModel | None = None
    config: ServeConfig
    folder: str
    """The server's private temporary folder."""
    started: str
    """UTC, ISO 8601."""
    refused: str = ""
    """The attempt whose package could not be loaded; the one in `served` stays."""
    problem: str = ""
    """Why it could not."""

    @property
    def package_sha256(self) -> str:
        """Hash of the package being served."""
        return self.served.package_sha256


class Standing(_Document):
    """`serve.standing.json`: somebody stands by to start the server for those who deploy."""

    id: str
    refused: str = ""
    """The attempt that could not be started."""
    problem: str = ""
    """Why."""


def read_state(state_dir: Path) -> ServeState | None:
    """The recorded server, alive or not; None if there is none or its record is unreadable."""
    try:
        return ServeState.model_validate(store.read_json((state_dir / STATE).absolute().as_uri()))
    except (StoreError, ValidationError):
        return None


def write_state(state_dir: Path, state: ServeState) -> None:
    """Record a server."""
    store.write_json((state_dir / STATE).absolute().as_uri(), state.model_dump(mode="json", by_alias=True))


def read_desired(state_dir: Path) -> Desired | None:
    """What should be served; None if nothing readable says so."""
    try:
        return Desired.model_validate(store.read_json((state_dir / DESIRED).absolute().as_uri()))
    except (StoreError, ValidationError):
        return None


def write_desired(state_dir: Path, desired: Desired) -> None:
    """Say what should be served."""
    store.write_json((state_dir / DESIRED).absolute().as_uri(), desired.model_dump(mode="json", by_alias=True))


@contextmanager
def only_one(state_dir: Path) -> Iterator[None]:
    """One at a time says what a folder's server should serve."""
    with (state_dir / ".serve.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def standing(state_dir: Path) -> Iterator[str]:
    """Stand by to start a folder's server; gives the id under which, and `stands` says so until the block ends.

    Raises:
        ServingError: somebody does already.
    """
    record, state_id = state_dir / STANDING, uuid.uuid4().hex
    with (state_dir / f".{STANDING}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ServingError(f"Somebody stands by in {state_dir} already.", "End it with `sonarc stop`.") from error
        write_standing(state_dir, Standing(id=state_id))
        try:
            yield state_id
        finally:
            record.unlink(missing_ok=True)


def stands(state_dir: Path) -> bool:
    """Whether somebody stands by to start the server of a folder: asked of the lock, which ends with its holder."""
    try:
        with (state_dir / f".{STANDING}.lock").open("r") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def read_standing(state_dir: Path) -> Standing | None:
    """Who stands by, as recorded; None if the record is gone, which tells that process to end."""
    try:
        return Standing.model_validate(store.read_json((state_dir / STANDING).absolute().as_uri()))
    except (StoreError, ValidationError):
        return None


def write_standing(state_dir: Path, record: Standing) -> None:
    """Record who stands by."""
    store.write_json((state_dir / STANDING).absolute().as_uri(), record.model_dump(mode="json"))


def own_processes(server_id: str) -> list[psutil.Process]:
    """The living processes of a server, found by the marker in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARKER) == server_id:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


def describe(processes: list[psutil.Process]) -> tuple[ServerProcess, ...]:
    """Processes as they are recorded."""
    described = []
    for process in processes:
        try:
            described.append(ServerProcess(pid=process.pid, started=process.create_time(), name=process.name()))
        except psutil.NoSuchProcess:
            continue
    return tuple(described)


def alive(state: ServeState) -> bool:
    """Whether the recorded supervisor still runs: the same process, not another that got its pid."""
    recorded = {process.pid: process.started for process in state.processes}
    try:
        process = psutil.Process(state.pid)
        same = abs(process.create_time() - recorded.get(state.pid, -1.0)) < 1.0
        return bool(same and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
