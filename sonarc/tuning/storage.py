"""Where a study lives: a file of its own by default, a PostgreSQL database for coordinators on many hosts.

The database's URL comes from the environment alone, since it may carry a password: it enters no configuration, key,
log or tracked run, and messages show it without. libpq's own PGPASSWORD and ~/.pgpass work too.
"""

from __future__ import annotations

import fcntl
import logging
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import optuna
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from sqlalchemy.exc import SQLAlchemyError

from sonarc.contracts import database
from sonarc.contracts.database import EXAMPLE, Place
from sonarc.contracts.errors import StageError, StoreError

T = TypeVar("T")
logger = logging.getLogger(__name__)

VARIABLE = "SONARC_TUNE_STORAGE"
GRACE_BEATS = 6
"""Signs of life that may be missed before a trial is taken for dead: a pause of the database is no death."""
RETRIES = 1
"""Further attempts at a trial whose coordinator died."""
OPENING_SECONDS = 5.0
"""Patience with a storage that has not answered yet: two coordinators may be making its tables at once."""
PAUSE_SECONDS = (0.2, 5.0)
"""Between two attempts at a storage that does not answer: at first, and at most."""


def place_of(folder: Path) -> Place:
    """The database that SONARC_TUNE_STORAGE names, else a file in `folder`.

    Raises:
        ConfigError: the variable does not hold the URL of a PostgreSQL database; the message does not repeat it.
    """
    return database.place_of(VARIABLE, folder / "study.db", "sonarc-tune")


def open_storage(place: Place, heartbeat_seconds: int) -> RDBStorage:
    """Connect, and make what tables are missing. Only a shared storage has heartbeats: a file has one user, who is
    found out by its lock.

    Args:
        heartbeat_seconds: between two signs of life of a trial.

    Raises:
        StoreError: it cannot be reached, or refuses.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    shared: dict[str, Any] = {
        "heartbeat_interval": heartbeat_seconds,
        "grace_period": GRACE_BEATS * heartbeat_seconds,
        "heartbeat_stale_trial_callback": once_more(),
    }

    def connect() -> RDBStorage:
        with _experimental():
            return RDBStorage(
                # The URL is a template to Optuna.
                place.url.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}"),
                engine_kwargs={"connect_args": place.connect, "pool_pre_ping": place.shared},
                **(shared if place.shared else {}),
            )

    return patiently(connect, place, OPENING_SECONDS)


def once_more() -> RetryHeartbeatStaleTrialCallback:
    """Queues a failed trial again, unless it is itself a second attempt."""
    with _experimental():
        return RetryHeartbeatStaleTrialCallback(max_retry=RETRIES)


@contextmanager
def _experimental() -> Iterator[None]:
    """Optuna's heartbeats work, and are called experimental."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


def patiently(call: Callable[[], T], place: Place, seconds: float) -> T:
    """What `call` returns, offered again for some seconds to a storage that does not answer.

    Raises:
        StoreError: it did not answer in that time.
    """
    until, pause = time.monotonic() + seconds, PAUSE_SECONDS[0]
    while True:
        try:
            return call()
        except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            said = _said(error, place)
            if time.monotonic() + pause > until:
                hint = "Check that it runs and lets this user in, then run again: what is measured is kept."
                # Without the driver's own error, whose text is not ours to vouch for.
                raise StoreError(f"The study's storage {place.shown} cannot be used: {said}.", hint) from None
            logger.warning("The study's storage %s does not answer (%s); it is asked again.", place.shown, said)
        time.sleep(pause)
        pause = min(2 * pause, PAUSE_SECONDS[1])


def _said(error: BaseException, place: Place) -> str:
    """The first line of the driver's own words."""
    if isinstance(error, optuna.exceptions.StorageInternalError) and error.__cause__ is not None:
        error = error.__cause__
    return place.said(error)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Be the only process that uses a study's file. The kernel lets go of the lock with a process, however it dies.

    Raises:
        StageError: another process does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StageError(
                f"Another process is searching in {folder}.",
                f"Wait for it, or let both search in one database: {VARIABLE}={EXAMPLE}",
            ) from error
        yield
