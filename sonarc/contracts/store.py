"""Locations are URIs: the one module that knows whether a file is local or in a bucket.

`file://` (or a plain path) and `s3://` are read and written through fsspec. Credentials come from
the environment or the provider's standard chain, never from a URI.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import posixpath
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
from fsspec import AbstractFileSystem
from platformdirs import user_cache_dir

from sonarc.contracts.errors import StoreError
from sonarc.contracts.hashing import sha256_bytes

SCHEMES = ("file", "s3")
_S3: dict[str, Any] = {
    # Another process may have written since a listing was kept.
    "use_listings_cache": False,
    "config_kwargs": {
        "retries": {"max_attempts": 5, "mode": "standard"},
        "connect_timeout": 5,
        "read_timeout": 30,
        # Most servers that speak S3 know nothing of the checksums that AWS has begun to add.
        "request_checksum_calculation": "when_required",
        "response_checksum_validation": "when_required",
    },
}
_CLIENTS = ("botocore", "aiobotocore", "aiohttp")
"""Packages below s3fs, some of whose errors it lets through."""


def cache_root() -> Path:
    """The user's cache folder for downloads, training state and the default store.

    `SONARC_CACHE` moves it.
    """
    return Path(os.environ.get("SONARC_CACHE") or user_cache_dir("sonarc"))


def default_store() -> str:
    """The store used when none is named: `SONARC_STORE`, or a folder in the user's cache."""
    return as_uri(os.environ.get("SONARC_STORE") or cache_root() / "store")


def as_uri(location: str | Path) -> str:
    """A URI for a path or URI; a scheme that Sonarc does not read is refused.

    Raises:
        StoreError: the scheme is none of `file`, `s3`, or the URI carries credentials.
    """
    text = str(location)
    if "://" not in text:
        return Path(text).expanduser().resolve().as_uri()
    scheme, rest = text.split("://", 1)
    if scheme not in SCHEMES:
        raise StoreError(
            f"The location {text!r} has the scheme {scheme!r}.", f"Use one of: {', '.join(SCHEMES)}, or a path."
        )
    if scheme != "file" and "@" in rest.split("/", 1)[0]:
        raise StoreError(
            "The location carries credentials in its address.",
            "Give credentials in the environment or the standard credentials file instead.",
        )
    return text.rstrip("/")


def filesystem(uri: str | Path) -> tuple[AbstractFileSystem, str]:
    """The fsspec filesystem of a location, and the location's path on it."""
    text = as_uri(uri)
    fs, path = fsspec.core.url_to_fs(text, **(_S3 if text.startswith("s3:") else {}))
    return fs, path


def join(uri: str, *parts: str) -> str:
    """`uri` with path parts appended."""
    return posixpath.join(as_uri(uri), *parts)


def local_path(uri: str | Path) -> Path | None:
    """The local path of a `file://` location, or None for one in a bucket."""
    fs, path = filesystem(uri)
    return Path(path) if "file" in _protocols(fs) else None


def _protocols(fs: AbstractFileSystem) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)


@contextmanager
def _explained(verb: str, uri: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise StoreError(
            f"Nothing is stored at {uri}.", "Check the location, or run the stage that makes it."
        ) from error
    except PermissionError as error:
        if _is_expired(error):
            raise StoreError(
                f"Could not {verb} {uri}: the credentials have expired.",
                "Renew them and run again: what is stored stays, and the run goes on from there.",
            ) from error
        raise StoreError(f"No permission to {verb} {uri}.", "Check the folder's rights or the credentials.") from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise StoreError(f"The disk is full: could not {verb} {uri}.", "Free some space and run again.") from error
        hint = "Check that the store can be reached, and that its credentials, if it has any, have not expired."
        raise StoreError(f"Could not {verb} {uri}: {error}.", hint) from error
    except Exception as error:
        if not type(error).__module__.startswith(_CLIENTS):
            raise
        raise StoreError(
            f"Could not {verb} {uri}: {error}.",
            "Check the endpoint (AWS_ENDPOINT_URL) and the credentials in the environment.",
        ) from error


def _is_expired(error: PermissionError) -> bool:
    """Whether that is what an S3 server said of the session's credentials."""
    answer = getattr(error.__cause__, "response", None) or {}
    return bool(answer.get("Error", {}).get("Code") == "ExpiredToken")


def exists(uri: str) -> bool:
    """Whether a file or folder is there."""
    fs, path = filesystem(uri)
    with _explained("look at", uri):
        return bool(fs.exists(path))


def read_bytes(uri: str) -> bytes:
    """The whole content of one file."""
    fs, path = filesystem(uri)
    with _explained("read", uri):
        return bytes(fs.cat_file(path))


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """A temporary sibling of a local file, gone after the block; folders are made."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(uri: str, data: bytes) -> str:
    """Write one file atomically and return its sha256: readers see all of it or none.

    Locally a temporary sibling is renamed; an object store's put is atomic by itself.
    """
    fs, path = filesystem(uri)
    with _explained("write", uri):
        if "file" in _protocols(fs):
            with _beside(Path(path)) as temporary:
                with temporary.open("wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                temporary.replace(path)
        else:
            fs.pipe_file(path, data)
    return sha256_bytes(data)


def create(uri: str, data: bytes) -> bool:
    """Write a file that must not be there yet: True if it was written, False if somebody was faster.

    In a bucket the server decides (`If-None-Match`). One that does not know that header lets the last writer win, so
    what is there is read again.
    """
    fs, path = filesystem(uri)
    with _explained("write", uri):
        if "file" in _protocols(fs):
            with _beside(Path(path)) as temporary:
                temporary.write_bytes(data)
                try:
                    os.link(temporary, path)
                except FileExistsError:
                    return False
            return True
        if fs.exists(path):
            return False
        try:
            fs.pipe_file(path, data, mode="create")
        except FileExistsError:
            return False
        return bytes(fs.cat_file(path)) == data


def read_json(uri: str) -> Any:
    """The JSON document at `uri`.

    Raises:
        StoreError: it is missing or not JSON.
    """
    data = read_bytes(uri)
    try:
        return json.loads(data)
    except ValueError as error:
        raise StoreError(
            f"{uri} is not valid JSON: {error}.", "Remove the damaged file and run the stage again."
        ) from error


def write_json(uri: str, value: Any) -> str:
    """Write a JSON document atomically, NaN refused, and return its sha256."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return write_bytes(uri, (text + "\n").encode("utf-8"))


def list_files(uri: str) -> dict[str, int]:
    """Files below a folder: path relative to it → bytes, sorted by path; empty if there is none."""
    fs, path = filesystem(uri)
    with _explained("list", uri):
        if not fs.exists(path):
            return {}
        found = fs.find(path, detail=True)
    base = path.rstrip("/") + "/"
    return {name.removeprefix(base): int(info["size"]) for name, info in sorted(found.items())}


def copy(source: str, target: str) -> None:
    """Copy a file within the store: by a hard link where there is one disk, by the server in a bucket."""
    place, fresh = local_path(source), local_path(target)
    if place is not None and fresh is not None:
        with _explained("copy", source):
            fresh.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(OSError):  # another disk, or one without links
                fresh.unlink(missing_ok=True)
                os.link(place, fresh)
                return
        with _explained("copy", source):
            _copy_beside(place, fresh)
        return
    (fs, path), (_, into) = filesystem(source), filesystem(target)
    with _explained("copy", source):
        fs.copy(path, into)


def move_in(local: Path, uri: str) -> None:
    """Move a local file into the store, where it appears whole or not at all; on one disk without a copy."""
    target = local_path(uri)
    with _explained("write", uri):
        if target is None:
            fs, path = filesystem(uri)
            fs.put_file(str(local), path)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                local.replace(target)
                return
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
            _copy_beside(local, target)
        local.unlink()


def _copy_beside(local: Path, target: Path) -> None:
    with _beside(target) as temporary:
        shutil.copyfile(local, temporary)
        temporary.replace(target)


def fetch_folder(uri: str, into: Path) -> Path:
    """A local folder with the content of `uri`: itself when it is local, else a copy in `into`."""
    place = local_path(uri)
    if place is not None:
        if not place.is_dir():
            raise StoreError(f"Nothing is stored at {uri}.", "Check the location, or run the stage that makes it.")
        return place
    fs, path = filesystem(uri)
    names = list_files(uri)
    if not names:
        raise StoreError(f"Nothing is stored at {uri}.", "Check the location, or run the stage that makes it.")
    with _explained("read", uri):
        for name in names:
            target = into / name
            target.parent.mkdir(parents=True, exist_ok=True)
            fs.get_file(posixpath.join(path, name), str(target))
    return into


def remove_file(uri: str) -> None:
    """Delete one file; no error if there is none."""
    fs, path = filesystem(uri)
    with _explained("remove", uri):
        if fs.exists(path):
            fs.rm_file(path)


def remove_folder(uri: str) -> None:
    """Delete a folder and what is below it; no error if there is none."""
    fs, path = filesystem(uri)
    with _explained("remove", uri):
        if fs.exists(path):
            fs.rm(path, recursive=True)
