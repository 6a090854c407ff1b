"""Shards: WebDataset tars whose bytes depend on their content alone, read back only if their hash is right.

A tar is silent about damage: a truncated one simply has fewer members. So nothing is read from a shard
before its bytes have been compared with the manifest.
"""

from __future__ import annotations

import hashlib
import re
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from sonarc.contracts import store
from sonarc.contracts.errors import DataError
from sonarc.contracts.hashing import CHUNK

KEY = re.compile(r"[0-9a-f]{20}-\d{3}")
"""A clip's key: no dots (WebDataset cuts a name at the first one), no separators."""

_BLOCK = tarfile.BLOCKSIZE
_AGAIN = "Make it again with the stage that wrote it."


def load_writer() -> None:
    """Load WebDataset, which loads torch: seconds that listing and reading a source must not spend."""
    import webdataset  # noqa: F401


class ShardWriter:
    """Writes one tar in WebDataset's layout, the members of a key side by side.

    Args:
        path: local file to write.
    """

    def __init__(self, path: Path) -> None:
        import webdataset  # here for the same reason

        self._file = path.open("wb")
        self._tar = webdataset.TarWriter(self._file, user="sonarc", group="sonarc", encoder=False, mtime=0)
        self._keys: set[str] = set()

    def write(self, key: str, members: dict[str, bytes]) -> dict[str, int]:
        """Append one clip.

        Args:
            key: see `KEY`; a shard holds it once.
            members: extension → content.

        Returns:
            extension → offset of the content's first byte in the tar.
        """
        if not KEY.fullmatch(key) or key in self._keys:
            raise DataError(f"The key {key!r} is malformed or already in the shard.", "Keys come from clip_key.")
        self._keys.add(key)
        offsets = {}
        at = self._tar.tarstream.offset
        for extension in sorted(members):  # TarWriter's order
            offsets[extension] = at + _BLOCK
            at += _BLOCK + -(-len(members[extension]) // _BLOCK) * _BLOCK
        self._tar.write({"__key__": key, **members})
        return offsets

    def close(self) -> None:
        """Write the end of the archive."""
        self._tar.close()
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True)
class Member:
    """A file in a shard."""

    key: str
    extension: str
    offset: int
    content: bytes


class ShardReader:
    """A shard whose bytes have been checked. Made by `open_shard`."""

    def __init__(self, file: BinaryIO, name: str, size: int) -> None:
        self._file, self._name, self._size = file, name, size

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset`.

        Raises:
            DataError: that range is not within the shard.
        """
        if offset < 0 or size < 0 or offset + size > self._size:
            raise DataError(f"Bytes {offset} to {offset + size} are not within {self._name} of {self._size}.", _AGAIN)
        self._file.seek(offset)
        return self._file.read(size)

    def __iter__(self) -> Iterator[Member]:
        """Every member in order.

        Raises:
            DataError: a link, device or sparse member, a name that is no key, a key twice or in two places.
        """
        self._file.seek(0)
        seen: set[str] = set()
        previous, extensions = "", set[str]()
        try:
            with tarfile.open(fileobj=self._file, mode="r:") as tar:
                for info in tar:
                    key, _, extension = info.name.partition(".")
                    if info.type != tarfile.REGTYPE or not KEY.fullmatch(key) or not extension:
                        raise DataError(f"{self._name} has the member {info.name!r}, which is no clip's.", _AGAIN)
                    if key != previous:
                        if key in seen:
                            raise DataError(f"{self._name} has the key {key} in two places.", _AGAIN)
                        seen.add(key)
                        previous, extensions = key, set()
                    if extension in extensions:
                        raise DataError(f"{self._name} has {info.name} twice.", _AGAIN)
                    extensions.add(extension)
                    content = tar.extractfile(info)
                    assert content is not None  # a regular file
                    yield Member(key, extension, info.offset_data, content.read())
        except tarfile.TarError as error:
            raise DataError(f"{self._name} is not a whole tar: {error}.", _AGAIN) from error


@contextmanager
def open_shard(uri: str, *, sha256: str, size: int) -> Iterator[ShardReader]:
    """A shard for reading, after its size and hash were found right; one in a bucket is copied first.

    Raises:
        DataError: it is not the shard that the manifest names. StoreError: it is missing.
    """
    name = uri.rsplit("/", 1)[-1]
    with tempfile.TemporaryDirectory(prefix="sonarc-shard-") as folder:
        path = store.local_path(uri) or _download(uri, Path(folder) / name)
        if not path.is_file():
            raise DataError(f"The shard {name} is missing at {uri}.", _AGAIN)
        with path.open("rb") as file:
            digest, length = hashlib.sha256(), 0
            while chunk := file.read(CHUNK):
                digest.update(chunk)
                length += len(chunk)
            if length != size or digest.hexdigest() != sha256:
                raise DataError(
                    f"The shard {name} has {length} bytes and sha256 {digest.hexdigest()[:12]}…, "
                    f"its manifest says {size} and {sha256[:12]}….",
                    _AGAIN,
                )
            yield ShardReader(file, name, length)


def _download(uri: str, path: Path) -> Path:
    path.write_bytes(store.read_bytes(uri))
    return path
