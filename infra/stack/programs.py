"""Programs of the services, where distributions put them, and what to install where one is missing."""

from __future__ import annotations

import os
import pwd
import shutil
import sys
from pathlib import Path
from typing import Any

from sonarc.contracts.errors import ConfigError

POSTGRESQL = Path("/usr/lib/postgresql")
PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath), "/usr/sbin"])
"""Beside this Python, then as the shell looks."""


def program(name: str, install: str) -> str:
    """Path of a program.

    Raises:
        ConfigError: it is not here; the hint is how to install it.
    """
    found = shutil.which(name, path=PATH)
    if found is None:
        raise ConfigError(f"The program {name} is missing.", f"Install it: {install}")
    return found


def postgresql_programs() -> Path | None:
    """The folder of PostgreSQL's programs: the newest that Debian's packages left, or what the path has."""
    debian = sorted(POSTGRESQL.glob("*/bin/initdb"), key=lambda found: int(found.parts[-3]))
    found = debian[-1] if debian else shutil.which("initdb")
    return Path(found).parent if found else None


def unprivileged() -> dict[str, Any]:
    """Keyword arguments of Popen for programs that refuse to run as root: PostgreSQL's own user, or nobody."""
    if os.geteuid():
        return {}
    names = [user.pw_name for user in pwd.getpwall()]
    user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": [], "cwd": "/"}


def require_entry(folder: Path, user: dict[str, Any]) -> None:
    """Check that a user other than ourselves may enter all folders above one.

    Raises:
        ConfigError: one of them is closed.
    """
    if not user:
        return
    for above in (folder, *folder.parents):
        found = above.stat() if above.exists() else None
        if found and not (found.st_mode & 0o001 or found.st_uid == user["user"]):
            raise ConfigError(
                f"PostgreSQL does not run as root, and its user may not enter {above}.",
                "Name a data folder with --data that others may enter, or start the stack as an ordinary user.",
            )
