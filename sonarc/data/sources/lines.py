"""Lines of text files as people leave them: of any length, with or without a BOM, in whatever bytes."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any, BinaryIO

from sonarc.audio.refusal import Refused
from sonarc.contracts import store
from sonarc.contracts.dataset import Reason

MAX_LINE = 1 << 20  # bytes


def lines(uri: str) -> Iterator[tuple[int, bytes | None]]:
    """(number, content) of each line that is not blank; None for one beyond `MAX_LINE`."""
    fs, path = store.filesystem(uri)
    with fs.open(path, "rb") as raw:
        file = io.BufferedReader(raw)  # a bucket's files cannot read a line of limited length themselves
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


def text(line: bytes | None) -> str:
    """A line's text.

    Raises:
        Refused: it is too long or not UTF-8.
    """
    if line is None:
        raise Refused(Reason.BAD_CAPTION, f"a line longer than {MAX_LINE} bytes")
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Refused(Reason.BAD_CAPTION, f"not UTF-8 at byte {error.start}") from error


def json_object(line: bytes | None) -> dict[str, Any]:
    """A line's JSON object.

    Raises:
        Refused: it holds something else.
    """
    try:
        row = json.loads(text(line))
    except (ValueError, RecursionError) as error:
        raise Refused(Reason.BAD_CAPTION, "the row is not JSON") from error
    if not isinstance(row, dict):
        raise Refused(Reason.BAD_CAPTION, "the row is not a JSON object")
    return row
