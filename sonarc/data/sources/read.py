"""Whatever a source is, its files: which layout it has, and what lies in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from sonarc.contracts import store
from sonarc.contracts.config import SourceConfig
from sonarc.contracts.errors import SourceError, StoreError
from sonarc.contracts.hashing import sha256_json
from sonarc.data.sources.folder import CAPTIONS_FILE, folder_rows
from sonarc.data.sources.listing import Listing, Present, Row, collect, stamp_of
from sonarc.data.sources.published import LAYOUTS, Tree
from sonarc.data.sources.table import is_table, table_info, table_rows

TABLE = "<table>"  # no path: it may lie elsewhere


def read_source(source: SourceConfig) -> Listing:
    """The files of a source with their captions.

    Raises:
        SourceError: there is no such place, nothing in it, or not what its layout has.
    """
    root, present = _root(source), _files(source)
    return collect(source, root, present, _rows(source, root, present))


def fingerprint(sources: Iterable[SourceConfig]) -> str:
    """Hash of the paths, sizes and times (or entity tags) of all files, so that a changed source is noticed.

    What lies at HTTPS addresses is not looked at: only the table that names them is.

    Raises:
        SourceError: a source is missing or empty.
    """
    listed = []
    for source in sources:
        files = {path: stamp_of(info) for path, info in _files(source).items()}
        if is_table(source.uri):
            files[TABLE] = stamp_of(table_info(source))
        listed.append([source.model_dump(mode="json", exclude={"uri", "audio"}), files])
    return sha256_json(listed)


def _root(source: SourceConfig) -> str:
    """The folder that paths are relative to."""
    if not is_table(source.uri):
        return source.uri
    return source.audio or source.uri.rpartition("/")[0] or "."


def _rows(source: SourceConfig, root: str, present: Present) -> Iterator[Row]:
    if source.layout != "auto":
        return LAYOUTS[source.layout](Tree(source, root, present))
    return table_rows(source) if is_table(source.uri) else folder_rows(root, present)


def _files(source: SourceConfig) -> dict[str, dict[str, Any]]:
    """path → what the filesystem knows of it. Hidden files (`.DS_Store`, AppleDouble `._x.wav`) are no content."""
    uri = _root(source)
    try:
        fs, root = store.filesystem(uri)
        found = fs.find(root, detail=True) if fs.isdir(root) else {}
    except (StoreError, OSError) as error:
        raise SourceError(
            f"The source {source.name!r} at {uri} cannot be read: {error}", "Check its location and rights."
        ) from error
    base = root.rstrip("/") + "/"
    relative = {name.removeprefix(base): info for name, info in found.items()}
    visible = {path: info for path, info in relative.items() if not any(p.startswith(".") for p in path.split("/"))}
    if not visible and not is_table(source.uri):  # a table may name addresses alone
        raise SourceError(
            f"The source {source.name!r} has no files at {uri}.",
            f"Give a folder with audio files and {CAPTIONS_FILE}."
            if source.layout == "auto"
            else f"Give the folder that the archives of {source.layout} were unpacked to.",
        )
    return visible
