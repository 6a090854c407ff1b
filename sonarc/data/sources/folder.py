"""A folder of audio files with their captions, local or in a bucket.

`captions.jsonl` has a row a file:

    {"path": "drums/kick.wav", "captions": ["a deep kick drum"], "concept": {"class": "kick"}, "group": "kit 1"}

`path` and `captions` (a text or a list) are needed; `concept` (the facts behind the captions), `group`
(recordings that must stay in one split), `source`, `author`, `licence` and `url` are optional. A path may be an HTTPS
address. A folder without `captions.jsonl` has the captions of `kick.wav` in `kick.txt`, a line each.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from sonarc.audio.refusal import Refused
from sonarc.contracts import store
from sonarc.data.sources.lines import json_object, lines, text
from sonarc.data.sources.listing import Present, Row, check_present, is_audio

CAPTIONS_FILE = "captions.jsonl"


def folder_rows(root: str, present: Present) -> Iterator[Row]:
    """The rows of `captions.jsonl`, or of the captions beside the files."""
    return jsonl_rows(store.join(root, CAPTIONS_FILE)) if CAPTIONS_FILE in present else _sidecars(root, present)


def jsonl_rows(uri: str) -> Iterator[Row]:
    """The rows of a JSONL file."""
    name = posixpath.basename(uri)
    for number, line in lines(uri):
        place = f"{name}:{number}"
        try:
            yield Row(place, json_object(line))
        except Refused as refused:
            yield Row(place, refused)


def _sidecars(root: str, present: Present) -> Iterator[Row]:
    for path in sorted(filter(is_audio, present)):
        sidecar = posixpath.splitext(path)[0] + ".txt"
        if sidecar not in present:
            continue
        facts: dict[str, object] | Refused
        try:
            check_present(root, sidecar, present)
            facts = {"path": path, "captions": [text(line) for _, line in lines(store.join(root, sidecar))]}
        except Refused as refused:
            facts = refused
        yield Row(path, facts)
