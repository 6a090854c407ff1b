"""API keys: hashed at rest, several, revocable while the server runs.

    from serving.keys import KeyRing, add_key
    secret = add_key(Path("keys.json"), "studio")    # shown once, kept nowhere
    KeyRing(Path("keys.json")).identify(secret).id   # "studio"

A key is 256 random bits, so that its plain SHA-256 tells nothing about it.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from serving import errors
from sonarc.contracts import store
from sonarc.contracts.errors import ServingError, StoreError

KEYS = "SONARC_SERVE_KEYS"
"""Environment variable: the file of keys, where the settings name none."""
_PREFIX = "sonarc-"


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Key(_Document):
    """Who asks, and what they may."""

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,40}$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    created: str
    """UTC, ISO 8601."""
    requests_per_minute: Annotated[int, Field(ge=0)] | None = None
    """Clips a minute; None: the server's setting."""
    concurrent_requests: Annotated[int, Field(ge=0)] | None = None
    """Requests at one time; None: the server's setting."""


class _KeyFile(_Document):
    schema_: Literal["sonarc.keys/1"] = Field(default="sonarc.keys/1", alias="schema")
    keys: tuple[Key, ...] = ()


ANYONE = Key(id="anyone", sha256="0" * 64, created="")
"""Who asks where no keys are needed."""


class KeyRing:
    """The keys of one file, read again whenever it changes.

    Args:
        path: the file; None: nobody needs a key.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._keys: tuple[Key, ...] = ()

    def identify(self, presented: str) -> Key:
        """Whose key it is. Every known key is compared, each in constant time.

        Raises:
            ApiError: 401 for an unknown key; 503 while the file cannot be read.
        """
        if self._path is None:
            return ANYONE
        self._refresh(self._path)
        digest = _hash(presented)
        found = None
        for key in self._keys:
            if hmac.compare_digest(key.sha256, digest):
                found = key
        if found is None:
            raise errors.unauthorized()
        return found

    def _refresh(self, path: Path) -> None:
        try:
            stat = path.stat()
            seen = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if seen != self._seen:
                self._keys = read_keys(path)
                self._seen = seen
        except (OSError, ServingError) as error:
            self._seen, self._keys = None, ()
            raise errors.not_ready() from error  # with its keys unreadable, nobody gets in


def keys_path(configured: str) -> Path | None:
    """The file of keys that the settings, or the environment, name."""
    named = configured or os.environ.get(KEYS, "")
    return Path(named).absolute() if named else None


def read_keys(path: Path) -> tuple[Key, ...]:
    """The keys in a file.

    Raises:
        ServingError: there is none, or it is no file of keys.
    """
    try:
        return _KeyFile.model_validate(store.read_json(path.absolute().as_uri())).keys
    except (StoreError, ValidationError) as error:
        raise ServingError(f"{path} is no file of API keys.", "Make one with `sonarc keys add`.") from error


def add_key(
    path: Path, name: str, *, requests_per_minute: int | None = None, concurrent_requests: int | None = None
) -> str:
    """Add a key to a file, which is made if there is none. Returns the key itself, which is kept nowhere.

    Raises:
        ServingError: the name is taken, or not one of 1 to 40 letters, digits, dots, dashes and underscores.
    """
    known = read_keys(path) if path.exists() else ()
    if any(key.id == name for key in known):
        raise ServingError(f"There is a key {name!r} already.", "Revoke it first, or choose another name.")
    secret = _PREFIX + secrets.token_urlsafe(32)
    try:
        key = Key(
            id=name,
            sha256=_hash(secret),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            requests_per_minute=requests_per_minute,
            concurrent_requests=concurrent_requests,
        )
    except ValidationError as error:
        raise ServingError(
            f"A key cannot be named {name!r}, or its limits are negative.", "Use letters, digits, dots and dashes."
        ) from error
    _write(path, (*known, key))
    return secret


def revoke_key(path: Path, name: str) -> None:
    """Take a key out of a file: a running server refuses it from the next request on.

    Raises:
        ServingError: there is no such key.
    """
    known = read_keys(path)
    left = tuple(key for key in known if key.id != name)
    if len(left) == len(known):
        raise ServingError(f"There is no key {name!r} in {path}.", "`sonarc keys list` names them.")
    _write(path, left)


def _write(path: Path, keys: tuple[Key, ...]) -> None:
    document = _KeyFile(keys=keys).model_dump(mode="json", by_alias=True)
    store.write_json(path.absolute().as_uri(), document)
    path.chmod(0o600)


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
