"""PostgreSQL: MLflow's runs and accounts, and the searches of the pipeline."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import psycopg

from infra.stack.layout import Layout
from infra.stack.ports import HOST
from infra.stack.programs import postgresql_programs, program, require_entry, unprivileged
from infra.stack.service import Service
from sonarc.contracts.errors import ConfigError, StageError

SUPERUSER = "sonarc"
DATABASES = {"mlflow", "mlflow_auth", "tuning"}
FIRST = Path(__file__).parents[1] / "parts" / "postgres" / "init.sql"
"""Makes roles and databases, here as on a cluster."""
DEBIAN = "apt-get install postgresql"


def postgres(layout: Layout) -> Service:
    """The server over `<data>/postgres`; its passwords come from files."""
    found = postgresql_programs()
    if found is None:
        raise ConfigError("PostgreSQL is missing.", f"Install it: {DEBIAN}")
    program("psql", DEBIAN)
    folder, port = layout.folder / "postgres", layout.ports["postgres"]
    command = (
        str(found / "postgres"), "-D", str(folder / "data"), "-p", str(port),
        "-c", f"listen_addresses={HOST}", "-c", "unix_socket_directories=",
        "-c", "shared_buffers=64MB",
        # A statement that fails may hold a password, and would be in the log.
        "-c", "log_statement=none", "-c", "log_min_error_statement=panic",
    )  # fmt: skip
    return Service(
        "postgres",
        command,
        ready=lambda: _answers(layout),
        environment=layout.bare(),
        address=f"{HOST}:{port}",
        prepare=lambda: _make(found, folder, layout),
        settle=lambda: _databases(layout),
        as_user=unprivileged(),
        end_with=signal.SIGINT,  # its "fast" shutdown; SIGTERM would wait for every client to leave
    )


def _make(programs: Path, folder: Path, layout: Layout) -> None:
    """A cluster's folder, unless there is one; whole or not at all."""
    user = unprivileged()
    folder.mkdir(exist_ok=True)
    if (folder / "data").exists():
        return
    if user:
        os.chown(folder, user["user"], user["group"])
    require_entry(folder, user)
    password, fresh = folder / "password", folder / "new"
    shutil.rmtree(fresh, ignore_errors=True)
    password.touch(mode=0o600)
    try:
        if user:
            os.chown(password, user["user"], user["group"])
        password.write_text(layout.secrets.value("postgres-superuser"), encoding="utf-8")
        command = [
            str(programs / "initdb"), "-D", str(fresh), "-U", SUPERUSER, "-A", "scram-sha-256",
            "--pwfile", str(password), "-E", "UTF8", "--no-locale",
        ]  # fmt: skip
        done = subprocess.run(
            command, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=layout.bare(), **user
        )
    finally:
        password.unlink()
    if done.returncode:
        raise StageError(f"PostgreSQL's folder {folder} could not be made.", done.stderr.strip())
    fresh.rename(folder / "data")


def _connect(layout: Layout) -> psycopg.Connection[Any]:
    return psycopg.connect(
        host=HOST, port=layout.ports["postgres"], user=SUPERUSER, dbname="postgres", autocommit=True, connect_timeout=5,
        password=layout.secrets.value("postgres-superuser"),
    )  # fmt: skip


def _answers(layout: Layout) -> bool:
    try:
        _connect(layout).close()
    except psycopg.OperationalError:
        return False
    return True


def _missing(layout: Layout) -> set[str]:
    with _connect(layout) as connection:
        return DATABASES - {name for (name,) in connection.execute("SELECT datname FROM pg_database").fetchall()}


def _databases(layout: Layout) -> None:
    """Roles and databases, where they are missing; what a script that broke off has made already it finds made."""
    if not _missing(layout):
        return
    secrets = layout.secrets
    told = {
        "MLFLOW_USER": "mlflow",
        "MLFLOW_PASSWORD": secrets.value("mlflow-database"),
        "TUNING_PASSWORD": secrets.value("tuning-database"),
        "PGPASSWORD": secrets.value("postgres-superuser"),
    }
    done = subprocess.run(
        ["psql", "--no-psqlrc", "--quiet", "-U", SUPERUSER, "-d", "postgres", "-f", str(FIRST)],
        env=layout.bare() | layout.database() | told, check=False, capture_output=True, text=True,
    )  # fmt: skip
    if missing := _missing(layout):
        raise StageError(f"The databases {', '.join(sorted(missing))} could not be made.", done.stderr.strip())


def tuning_url(layout: Layout) -> str:
    """Where the pipeline's searches keep their trials; holds a password."""
    return f"postgresql://tuning:{layout.secrets.value('tuning-database')}@{HOST}:{layout.ports['postgres']}/tuning"
