"""A real PostgreSQL server of one's own on loopback, with a password, that can be stopped and killed."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from infra.stack.programs import postgresql_programs, unprivileged
from sonarc.contracts.processes import free_port

PATIENCE = 30.0
USER, DATABASE = "sonarc", "tune"


@dataclass
class Postgres:
    """A server and its cluster's folder."""

    folder: Path
    bin: Path
    port: int
    password: str
    _server: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """What SONARC_TUNE_STORAGE says."""
        return f"postgresql://{USER}:{self.password}@127.0.0.1:{self.port}/{DATABASE}"

    @property
    def log(self) -> str:
        """What the server said."""
        return (self.folder / "server.log").read_text()

    def start(self) -> None:
        """Start it over the folder, and wait until it answers."""
        command = [
            str(self.bin / "postgres"), "-D", str(self.folder / "data"), "-p", str(self.port),
            "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "fsync=off",
            "-c", "shared_buffers=16MB", "-c", "log_statement=none",
        ]  # fmt: skip
        with (self.folder / "server.log").open("ab") as log:
            self._server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **unprivileged())
        until = time.monotonic() + PATIENCE
        while True:
            try:
                with self.connect(database="postgres"):
                    return
            except psycopg.OperationalError:
                assert self._server.poll() is None, self.log
                assert time.monotonic() < until, self.log
                time.sleep(0.1)

    def stop(self) -> None:
        """End it at once, as a crash would: connections break, what was committed stays."""
        if self._server is not None:
            self._server.send_signal(signal.SIGQUIT)
            self._server.wait(PATIENCE)
            self._server = None

    def connect(self, database: str = DATABASE) -> psycopg.Connection[Any]:
        """A connection of its owner."""
        return psycopg.connect(
            host="127.0.0.1", port=self.port, user=USER, password=self.password, dbname=database, autocommit=True
        )


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A server with one database, removed afterwards."""
    found = postgresql_programs()
    assert found, "PostgreSQL is missing; `make install` as root brings Debian's"
    folder = Path(tempfile.mkdtemp(prefix="sonarc-postgres-"))
    try:
        given = unprivileged()
        if "user" in given:
            os.chown(folder, given["user"], given["group"])
        server = Postgres(folder, found, free_port(), secrets.token_hex(16))
        (folder / "password").write_text(server.password)
        (folder / "password").chmod(0o644)  # in a folder that only its owner may enter
        command = [
            str(found / "initdb"), "-D", str(folder / "data"), "-U", USER, "-A", "scram-sha-256",
            "--pwfile", str(folder / "password"), "-E", "UTF8", "--no-locale", "--no-sync",
        ]  # fmt: skip
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True, **given)
        (folder / "password").unlink()
        server.start()
        with server.connect(database="postgres") as connection:
            connection.execute(f"CREATE DATABASE {DATABASE}")
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
