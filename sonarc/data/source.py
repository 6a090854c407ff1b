"""A source: a folder of audio files with captions, local or in a bucket.

`captions.jsonl` has a row a file:

    {"path": "drums/kick.wav", "captions": ["a deep kick drum"], "concept": {"class": "kick"}, "group": "kit 1"}

`path` and `captions` (a text or a list) are needed; `concept` (the facts behind the captions), `group`
(recordings that must stay in one split), `source`, `author`, `licence` and `url` are optional. A folder
without `captions.jsonl` has the captions of `kick.wav` in `kick.txt`, a line each.

One bad row or file never stops the rest: it is listed as refused.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from sonarc.audio.refusal import Refused
from sonarc.contracts import store
from sonarc.contracts.config import SourceConfig
from sonarc.contracts.dataset import Reason
from sonarc.contracts.errors import SourceError, StoreError
from sonarc.contracts.hashing import canonical_json, sha256_json
from sonarc.data.captions import clean_captions, clean_text

CAPTIONS_FILE = "captions.jsonl"
AUDIO_EXTENSIONS = frozenset(
    (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".caf", ".w64", ".rf64", ".au")
)
"""Extensions, in any case, by which an audio file without a caption is noticed."""

MAX_LINE = 1 << 20  # bytes of one row
MAX_FIELD = 500  # characters of a group, author, licence or address
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


@dataclass(frozen=True)
class SourceFile:
    """One file to ingest, with what its row says of it."""

    source: str
    path: str
    """Relative to the source's folder."""
    uri: str
    captions: tuple[str, ...]
    concept: str
    """Canonical JSON of the facts behind the captions."""
    group: str
    author: str = ""
    licence: str = ""
    url: str = ""
    weight: float = 1.0


@dataclass(frozen=True)
class Refusal:
    """A row of `quarantine.parquet`."""

    source: str
    path: str
    reason: Reason
    detail: str
    source_sha256: str = ""

    def row(self) -> dict[str, str]:
        """The refusal as a table row."""
        return {name: str(value) for name, value in asdict(self).items()}


@dataclass
class Listing:
    """What a source offers: files to ingest, and what is refused before any file is opened."""

    files: list[SourceFile] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)


def read_source(source: SourceConfig) -> Listing:
    """The files of a source with their captions.

    Raises:
        SourceError: there is no such folder, or nothing in it.
    """
    present = _files(source)
    listing = Listing()
    if CAPTIONS_FILE in present:
        named = _read_rows(source, present, listing)
    else:
        named = _read_sidecars(source, present, listing)
    for path in sorted(present):
        if path not in named and _is_audio(path):
            listing.refused.append(Refusal(source.name, path, Reason.NO_CAPTION, "no row names it"))
    return listing


def fingerprint(sources: Iterable[SourceConfig]) -> str:
    """Hash of the paths, sizes and times (or entity tags) of all files, so that a changed source is noticed.

    Raises:
        SourceError: a source is missing or empty.
    """
    listed = []
    for source in sources:
        files = {path: _stamp(info) for path, info in _files(source).items()}
        listed.append([source.name, source.licence, source.weight, files])
    return sha256_json(listed)


def _files(source: SourceConfig) -> dict[str, dict[str, Any]]:
    """path → what the filesystem knows of it. Hidden files (`.DS_Store`, AppleDouble `._x.wav`) are no content."""
    try:
        fs, root = store.filesystem(source.uri)
        found = fs.find(root, detail=True) if fs.isdir(root) else {}
    except (StoreError, OSError) as error:
        raise SourceError(
            f"The source {source.name!r} at {source.uri} cannot be read: {error}", "Check its location and rights."
        ) from error
    base = root.rstrip("/") + "/"
    relative = {name.removeprefix(base): info for name, info in found.items()}
    visible = {path: info for path, info in relative.items() if not any(p.startswith(".") for p in path.split("/"))}
    if not visible:
        raise SourceError(
            f"The source {source.name!r} has no files at {source.uri}.",
            f"Give a folder with audio files and {CAPTIONS_FILE}.",
        )
    return visible


def _stamp(info: dict[str, Any]) -> list[str]:
    return [str(info.get("size")), str(info.get("ETag") or info.get("mtime") or info.get("LastModified"))]


def _is_audio(path: str) -> bool:
    return posixpath.splitext(path)[1].lower() in AUDIO_EXTENSIONS


def _read_rows(source: SourceConfig, present: dict[str, dict[str, Any]], listing: Listing) -> set[str]:
    """Read captions.jsonl into `listing`; the paths that its rows name."""
    named: set[str] = set()
    for number, line in _lines(store.join(source.uri, CAPTIONS_FILE)):
        path = f"{CAPTIONS_FILE}:{number}"
        try:
            row = _parse(line)
            path = _row_path(row, path)
            if path in named:
                raise Refused(Reason.DUPLICATE, f"row {number} names it again")
            named.add(path)
            _check_present(source, path, present)
            listing.files.append(_source_file(source, path, row))
        except Refused as refused:
            listing.refused.append(Refusal(source.name, path, refused.reason, refused.detail))
    return named


def _read_sidecars(source: SourceConfig, present: dict[str, dict[str, Any]], listing: Listing) -> set[str]:
    named: set[str] = set()
    for path in sorted(filter(_is_audio, present)):
        sidecar = posixpath.splitext(path)[0] + ".txt"
        if sidecar not in present:
            continue
        named.add(path)
        try:
            _check_present(source, path, present)
            _check_present(source, sidecar, present)
            lines = [_text(line) for _, line in _lines(store.join(source.uri, sidecar))]
            listing.files.append(_source_file(source, path, {"captions": lines}))
        except Refused as refused:
            listing.refused.append(Refusal(source.name, path, refused.reason, refused.detail))
    return named


def _lines(uri: str) -> Iterator[tuple[int, bytes | None]]:
    """(number, content) of each line that is not blank; None for one beyond `MAX_LINE`."""
    fs, path = store.filesystem(uri)
    with fs.open(path, "rb") as file:
        number = 0
        while line := file.readline(MAX_LINE + 1):
            number += 1
            content: bytes | None = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if len(line) > MAX_LINE:
                content = None
                _skip_line(file, line)
            if content is None or content.strip():
                yield number, content


def _skip_line(file: BinaryIO, line: bytes) -> None:
    while line and not line.endswith(b"\n"):
        line = file.readline(MAX_LINE)


def _text(line: bytes | None) -> str:
    if line is None:
        raise Refused(Reason.BAD_CAPTION, f"a line longer than {MAX_LINE} bytes")
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Refused(Reason.BAD_CAPTION, f"not UTF-8 at byte {error.start}") from error


def _parse(line: bytes | None) -> dict[str, Any]:
    try:
        row = json.loads(_text(line))
    except (ValueError, RecursionError) as error:
        raise Refused(Reason.BAD_CAPTION, "the row is not JSON") from error
    if not isinstance(row, dict):
        raise Refused(Reason.BAD_CAPTION, "the row is not a JSON object")
    return row


def _row_path(row: dict[str, Any], place: str) -> str:
    """The file a row names, as a normal path inside the folder; `place` names the row itself."""
    path = row.get("path")
    if not isinstance(path, str) or not path:
        raise Refused(Reason.MISSING, "the row has no path")
    parts = path.split("/")
    if path.startswith("/") or ".." in parts or "\\" in path or re.search(r"[\x00-\x1f\ud800-\udfff]", path):
        raise Refused(Reason.UNSAFE_PATH, f"the path {path[:MAX_FIELD]!a} leads out of the folder or is malformed")
    return posixpath.normpath(path)


def _check_present(source: SourceConfig, path: str, present: dict[str, dict[str, Any]]) -> None:
    if path not in present:
        raise Refused(Reason.MISSING, "there is no such file")
    root = store.local_path(source.uri)
    if root is None:
        return
    real = Path(root, path).resolve()
    if not real.is_relative_to(root.resolve()):
        raise Refused(Reason.UNSAFE_PATH, "a link that leads out of the folder")
    if not real.is_file():  # a pipe or a device would be read for ever
        raise Refused(Reason.MISSING, "it is not a regular file")


def _source_file(source: SourceConfig, path: str, row: dict[str, Any]) -> SourceFile:
    captions = clean_captions(row.get("captions"))
    name = row.get("source")
    return SourceFile(
        source=name if isinstance(name, str) and _NAME.fullmatch(name) else source.name,
        path=path,
        uri=store.join(source.uri, path),
        captions=captions,
        concept=_concept(row.get("concept"), captions),
        group=_field(row, "group") or f"{source.name}/{path}",
        author=_field(row, "author"),
        licence=_field(row, "licence") or source.licence,
        url=_field(row, "url"),
        weight=source.weight,
    )


def _concept(value: Any, captions: tuple[str, ...]) -> str:
    """Without stated facts, the first caption is the concept: equal captions mean the same thing."""
    if not isinstance(value, dict) or not value:
        return canonical_json({"caption": captions[0].casefold()})
    try:
        text = canonical_json(value)
        text.encode("utf-8")
    except ValueError as error:  # NaN, infinity or half of a surrogate pair
        raise Refused(Reason.BAD_CAPTION, "its concept is not plain JSON") from error
    if len(text) > 16 * MAX_FIELD:
        raise Refused(Reason.BAD_CAPTION, f"a concept of {len(text)} characters")
    return text


def _field(row: dict[str, Any], name: str) -> str:
    value = row.get(name)
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > MAX_FIELD:
        raise Refused(Reason.BAD_CAPTION, f"its {name} is no text of at most {MAX_FIELD} characters")
    return clean_text(value)
