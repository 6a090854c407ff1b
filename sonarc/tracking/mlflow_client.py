"""The MLflow client: quick to give up on a dead server, patient with a busy SQLite file.

with explained(uri):
    client(uri).get_run(run_id)
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sonarc.contracts.errors import TrackingError

if TYPE_CHECKING:
    from mlflow import MlflowClient

SQLITE = "sqlite:///"
BUSY_SECONDS = 30
"""How long a writer waits for another process's transaction on a SQLite file."""

_DEFAULTS = {
    # MLflow's own defaults (120 s, 7 retries) would hold up training for minutes when the server is gone.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}

_TRANSIENT = {"INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "DEADLINE_EXCEEDED", "REQUEST_LIMIT_EXCEEDED"}


def client(uri: str) -> MlflowClient:
    """A client of the tracking server, or SQLite file, at `uri`. The user's own MLFLOW_* variables win."""
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=_patient(uri), registry_uri=_patient(uri))


def _patient(uri: str) -> str:
    if not uri.startswith(SQLITE) or "timeout=" in uri:
        return uri
    return f"{uri}{'&' if '?' in uri else '?'}timeout={BUSY_SECONDS}"


def sqlite_path(uri: str) -> Path | None:
    """The database file of a `sqlite:///` URI, or None for a server."""
    return Path(uri.removeprefix(SQLITE).split("?", 1)[0]).absolute() if uri.startswith(SQLITE) else None


def artifact_root(uri: str) -> str | None:
    """Where experiments on a SQLite file keep their artifacts: beside it. None: the server decides."""
    path = sqlite_path(uri)
    return None if path is None else (path.parent / "artifacts").as_uri()


def initialise(uri: str) -> None:
    """Create or migrate the SQLite schema under a file lock: two processes doing it together break it."""
    path = sqlite_path(uri)
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with (path.parent / f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with sqlite3.connect(path, timeout=BUSY_SECONDS) as database:
            database.execute("PRAGMA journal_mode=WAL")  # readers do not block the writer
        database.close()
        client(uri).search_experiments(max_results=1)


def transient(error: BaseException) -> bool:
    """Whether trying again later may help: the server is away or the database busy."""
    from mlflow.exceptions import MlflowException

    if isinstance(error, MlflowException):
        return error.error_code in _TRANSIENT
    return isinstance(error, OSError)


@contextmanager
def explained(uri: str) -> Iterator[None]:
    """Turn MLflow's errors into a `TrackingError` that names the server."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, OSError, sqlite3.Error) as error:
        hint = (
            "Check that the tracking server runs and can be reached."
            if transient(error) or isinstance(error, sqlite3.Error)
            else "Check the name, the version and your rights there."
        )
        raise TrackingError(f"MLflow at {uri}: {_first_line(error)}.", hint) from error


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(".")[:400]
