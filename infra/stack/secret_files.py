"""Secrets as files, one a value, for their owner only: made once, and kept."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


def _token() -> str:
    return secrets.token_hex(24)


@dataclass(frozen=True)
class SecretFiles:
    """A folder of secrets, of mode 0700; its files are of mode 0600."""

    folder: Path

    def path(self, name: str) -> Path:
        """The file of a secret."""
        return self.folder / name

    def value(self, name: str, make: Callable[[], str] = _token) -> str:
        """A secret; made the first time it is asked for."""
        path = self.path(name)
        if not path.exists():
            self.write(name, make())
        return path.read_text(encoding="utf-8")

    def write(self, name: str, value: str) -> Path:
        """Put a value of one's own into a secret's file, whole or not at all."""
        path = self.path(name)
        for folder in (self.folder, path.parent):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.chmod(0o700)
        fresh = path.with_name(f".{path.name}.new")
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(value)
        fresh.replace(path)
        return path
