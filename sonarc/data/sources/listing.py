"""What a source offers: rows of whatever layout, checked one by one and made into files to ingest.

One bad row or file never stops the rest: it is listed as refused.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from sonarc.audio.refusal import Refused
from sonarc.contracts import store
from sonarc.contracts.config import SourceConfig
from sonarc.contracts.dataset import Reason
from sonarc.contracts.hashing import canonical_json
from sonarc.data.captions import clean_captions, clean_text

AUDIO_EXTENSIONS = frozenset(
    (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".caf", ".w64", ".rf64", ".au")
)
"""Extensions, in any case, by which an audio file without a caption is noticed."""

MAX_FIELD = 500  # characters of a group, author, licence or address
HTTPS = "https://"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file to ingest, with what its row says of it."""

    source: str
    path: str
    """Relative to the source's folder, or an HTTPS address."""
    uri: str
    captions: tuple[str, ...]
    concept: str
    """Canonical JSON of the facts behind the captions."""
    group: str
    author: str = ""
    licence: str = ""
    url: str = ""
    weight: float = 1.0
    stamp: str = ""
    """Size and time (or entity tag): while they stay, so do the bytes. What lies at an address is taken to stay."""


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


@dataclass(frozen=True)
class Row:
    """A row of a source's annotations.

    Attributes:
        place: where it stands, as `captions.jsonl:3`.
        facts: `path` and `captions`, and `concept`, `group`, `source`, `author`, `licence`, `url` where stated; or why
            the row cannot be read.
    """

    place: str
    facts: Mapping[str, Any] | Refused


Present = Mapping[str, Mapping[str, Any]]
"""path → what the filesystem knows of the file."""


def collect(source: SourceConfig, root: str, present: Present, rows: Iterable[Row]) -> Listing:
    """Every row checked; audio files that no row names are refused, too.

    Args:
        root: URI of the folder that paths are relative to.
        present: the files in it.
    """
    listing, named = Listing(), set[str]()
    for row in rows:
        path = row.place
        try:
            if isinstance(row.facts, Refused):
                raise row.facts
            path = _row_path(row.facts, path)
            if path in named:
                raise Refused(Reason.DUPLICATE, f"{row.place} names it again")
            named.add(path)
            if not path.startswith(HTTPS):
                check_present(root, path, present)
            file = _source_file(source, root, path, row.facts)
            listing.files.append(replace(file, stamp=stamp_of(present[path]) if path in present else path))
        except Refused as refused:
            listing.refused.append(Refusal(source.name, path, refused.reason, refused.detail))
    for path in sorted(present):
        if path not in named and is_audio(path):
            listing.refused.append(Refusal(source.name, path, Reason.NO_CAPTION, "no row names it"))
    return listing


def stamp_of(info: Mapping[str, Any]) -> str:
    """A file's size and its time or entity tag, as the filesystem tells them."""
    return f"{info.get('size')} {info.get('ETag') or info.get('mtime') or info.get('LastModified')}"


def is_audio(path: str) -> bool:
    """Whether a path's extension is an audio file's."""
    return posixpath.splitext(path)[1].lower() in AUDIO_EXTENSIONS


def check_present(root: str, path: str, present: Present) -> None:
    """Refuse a path that is no regular file inside the folder."""
    if path not in present:
        raise Refused(Reason.MISSING, "there is no such file")
    folder = store.local_path(root)
    if folder is None:
        return
    real = Path(folder, path).resolve()
    if not real.is_relative_to(folder.resolve()):
        raise Refused(Reason.UNSAFE_PATH, "a link that leads out of the folder")
    if not real.is_file():  # a pipe or a device would be read for ever
        raise Refused(Reason.MISSING, "it is not a regular file")


def _row_path(facts: Mapping[str, Any], place: str) -> str:
    """The file a row names, as a normal path inside the folder or an HTTPS address; `place` names the row itself."""
    path = facts.get("path")
    if not isinstance(path, str) or not path:
        raise Refused(Reason.MISSING, "the row has no path")
    if re.search(r"[\x00-\x1f\ud800-\udfff\\]", path) or len(path) > 4 * MAX_FIELD:
        raise Refused(Reason.UNSAFE_PATH, f"the path {path[:MAX_FIELD]!a} is malformed")
    if path.startswith(HTTPS):
        return path
    if _SCHEME.match(path):
        raise Refused(Reason.UNSAFE_PATH, f"the address {path[:MAX_FIELD]!a} is not HTTPS")
    if path.startswith("/") or ".." in path.split("/"):
        raise Refused(Reason.UNSAFE_PATH, f"the path {path[:MAX_FIELD]!a} leads out of the folder")
    return posixpath.normpath(path)


def _source_file(source: SourceConfig, root: str, path: str, facts: Mapping[str, Any]) -> SourceFile:
    captions = clean_captions(facts.get("captions"))
    name, remote = facts.get("source"), path.startswith(HTTPS)
    return SourceFile(
        source=name if isinstance(name, str) and _NAME.fullmatch(name) else source.name,
        path=path,
        uri=path if remote else store.join(root, path),
        captions=captions,
        concept=_concept(facts.get("concept"), captions),
        group=_field(facts, "group") or f"{source.name}/{path}",
        author=_field(facts, "author"),
        licence=_field(facts, "licence") or source.licence,
        url=_field(facts, "url") or (path if remote else ""),
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


def _field(facts: Mapping[str, Any], name: str) -> str:
    value = facts.get(name)
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > MAX_FIELD:
        raise Refused(Reason.BAD_CAPTION, f"its {name} is no text of at most {MAX_FIELD} characters")
    return clean_text(value)
