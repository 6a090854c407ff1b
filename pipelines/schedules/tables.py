"""The keeper's tables: schedules, the runs they led to, and the lease of the one process that may start runs.

They lie in SQLite, in the user's cache folder, or in the PostgreSQL database that SONARC_SCHEDULES names. Every value
is a plain column: nothing in them is code.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Connection,
    DateTime,
    Dialect,
    Engine,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    create_engine,
)
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.types import TypeDecorator

from sonarc.contracts import store
from sonarc.contracts.database import Place, place_of
from sonarc.contracts.errors import StoreError

VARIABLE = "SONARC_SCHEDULES"
FILE = "schedules.db"


class Moment(TypeDecorator[datetime]):
    """A time, kept in UTC: SQLite knows no zones."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)


_METADATA = MetaData()

SCHEDULES = Table(
    "sonarc_schedules",
    _METADATA,
    Column("name", String, primary_key=True),
    Column("cron", String, nullable=False),
    Column("timezone", String, nullable=False),
    Column("preset", String, nullable=False),
    Column("overrides", JSON, nullable=False),
    Column("version", String, nullable=False),
    Column("catch_up", String, nullable=False),
    Column("paused", Boolean, nullable=False),
    Column("spec_sha256", String, nullable=False),
    Column("next_fire", Moment),
)

RUNS = Table(
    "sonarc_schedule_runs",
    _METADATA,
    Column("id", Integer, primary_key=True),
    Column("schedule", String, nullable=False),
    Column("due", Moment, nullable=False),
    Column("started", Moment, nullable=False),
    Column("ended", Moment),
    Column("outcome", String, nullable=False),
    Column("detail", String, nullable=False, default=""),
    Column("log", String, nullable=False, default=""),
    Column("host", String, nullable=False),
    Column("pid", Integer),
    Column("began", Float),  # when that process was created, by its machine's clock: a pid may be used again
    UniqueConstraint("schedule", "due"),  # whatever happens, no fire leads to two runs
)

LEASES = Table(
    "sonarc_schedule_lease",
    _METADATA,
    Column("name", String, primary_key=True),
    Column("holder", String, nullable=False),
    Column("beat", Integer, nullable=False),
    Column("seen", Moment, nullable=False),  # by the holder's clock, to be shown; nobody decides by it
)


class Database:
    """The database that holds the tables.

    Args:
        place: where it is.

    Raises:
        StoreError: it cannot be reached, or refuses.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self._engine: Engine = create_engine(place.url, connect_args=place.connect, pool_pre_ping=place.shared)
        with self._explained():
            try:
                _METADATA.create_all(self._engine)
            except DBAPIError:  # another process was making them
                _METADATA.create_all(self._engine)

    @classmethod
    def default(cls) -> Database:
        """The one that SONARC_SCHEDULES names, or the file in the user's cache folder."""
        file = store.cache_root() / FILE
        file.parent.mkdir(parents=True, exist_ok=True)
        return cls(place_of(VARIABLE, file, "sonarc-schedule"))

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """All of what is written in the block, or nothing.

        Raises:
            StoreError: the database cannot be reached, or refuses.
        """
        with self._explained(), self._engine.begin() as connection:
            yield connection

    def close(self) -> None:
        """End the connections."""
        self._engine.dispose()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            # Without the driver's own error, whose text is not ours to vouch for.
            raise StoreError(
                f"The schedules' database {self.place.shown} cannot be used: {self.place.said(error)}.",
                "Check that it runs and lets this user in.",
            ) from None
