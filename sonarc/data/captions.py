"""Captions as people and scrapers leave them, made into plain lines of text or refused."""

from __future__ import annotations

import unicodedata
from typing import Any

from sonarc.audio.refusal import Refused
from sonarc.contracts.dataset import Reason

MAX_CHARACTERS = 1_000
"""Longest caption, characters after cleaning."""
MAX_CAPTIONS = 64
"""Most captions of one clip."""

_JOINERS = "\u200c\u200d"  # invisible, but Persian, Hindi and emoji are misspelt without them


def clean_text(text: str) -> str:
    """NFC, control characters and runs of white space as one space, invisible marks removed.

    Raises:
        Refused: it holds half of a surrogate pair, so it is no Unicode text and no file can hold it.
    """
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise Refused(Reason.BAD_CAPTION, "it holds half of a surrogate pair")
    kept = (
        " " if unicodedata.category(character) == "Cc" else character
        for character in unicodedata.normalize("NFC", text)
        if unicodedata.category(character) != "Cf" or character in _JOINERS
    )
    return " ".join("".join(kept).split())


def clean_captions(values: Any) -> tuple[str, ...]:
    """The captions of one clip: cleaned, blank ones and repetitions left out, order kept.

    Args:
        values: one caption or a list of them, as read from outside.

    Raises:
        Refused: no caption at all, or one that is no text, longer than `MAX_CHARACTERS` or malformed.
    """
    listed = [values] if isinstance(values, str) else values
    if listed is None or listed == []:
        raise Refused(Reason.NO_CAPTION, "it has no caption")
    if not isinstance(listed, list) or not all(isinstance(value, str) for value in listed):
        raise Refused(Reason.BAD_CAPTION, "its captions are not a list of texts")
    if len(listed) > MAX_CAPTIONS:
        raise Refused(Reason.BAD_CAPTION, f"it has {len(listed)} captions, more than {MAX_CAPTIONS}")
    cleaned: dict[str, None] = {}
    for value in listed:
        if len(value) > 16 * MAX_CHARACTERS:  # before any work is spent on it
            raise Refused(Reason.BAD_CAPTION, f"a caption of {len(value)} characters")
        text = clean_text(value)
        if len(text) > MAX_CHARACTERS:
            raise Refused(Reason.BAD_CAPTION, f"a caption of {len(text)} characters, more than {MAX_CHARACTERS}")
        if text:
            cleaned[text] = None
    if not cleaned:
        raise Refused(Reason.BAD_CAPTION, "its captions are blank")
    return tuple(cleaned)
