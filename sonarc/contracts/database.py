"""Where a table of ours lives: a file of its own by default, a PostgreSQL database for several hosts.

The database's URL comes from the environment alone, since it may carry a password: it enters no configuration, key,
log or tracked run, and messages show it without. libpq's own PGPASSWORD and ~/.pgpass work too.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from sonarc.contracts.errors import ConfigError

EXAMPLE = "postgresql://user:password@host:5432/database"
DRIVER = "postgresql+psycopg"
CONNECTION: dict[str, Any] = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
"""libpq's settings by which a host that vanished is noticed within half a minute."""


@dataclass(frozen=True)
class Place:
    """Where the tables live.

    Attributes:
        shown: what messages call it; free of secrets.
        shared: whether processes on several hosts can work on it at once.
        connect: arguments of a connection, the password among them.
    """

    shown: str
    shared: bool
    url: URL = field(repr=False)
    connect: dict[str, Any] = field(repr=False)

    def said(self, error: BaseException) -> str:
        """The first line of a driver's own words, without the password."""
        text = str(getattr(error, "orig", None) or error).strip()
        line = text.splitlines()[0].rstrip(".") if text else type(error).__name__
        secret = self.connect.get("password")
        return line.replace(secret, "***") if secret else line


def place_of(variable: str, file: Path, name: str) -> Place:
    """The database that an environment variable names, else a SQLite file.

    Args:
        name: what the server's administrator sees of the connection.

    Raises:
        ConfigError: the variable does not hold the URL of a PostgreSQL database; the message does not repeat it.
    """
    text = os.environ.get(variable)
    if not text:
        return Place(str(file), False, URL.create("sqlite", database=str(file)), {"timeout": 60})
    hint = f"Give it one like {EXAMPLE}, or unset it to use a file on this machine."
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise ConfigError(f"The environment variable {variable} does not hold the URL of a database.", hint) from None
    if url.drivername not in ("postgres", "postgresql", DRIVER):
        raise ConfigError(f"{variable} names a database of the kind {url.drivername!r}.", hint)
    if "@" in (url.host or ""):
        raise ConfigError(f"{variable} holds more than one @.", "Write %40 for an @ in the password.")
    if not url.database:
        raise ConfigError(f"{variable} names no database on its server.", hint)
    password = url.password or url.query.get("password")
    host = url.host or url.query.get("host") or "localhost"
    shown = f"postgresql://{url.username or ''}@{host}:{url.port or 5432}/{url.database}"
    bare = URL.create(DRIVER, url.username, None, url.host, url.port, url.database, url.query)
    bare = bare.difference_update_query(["password"])
    secret = {"password": password} if password else {}
    return Place(shown, True, bare, {**CONNECTION, "application_name": name, **secret})
