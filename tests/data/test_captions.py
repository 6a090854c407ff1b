from __future__ import annotations

import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sonarc.audio import Refused
from sonarc.contracts.dataset import Reason
from sonarc.data.captions import MAX_CAPTIONS, MAX_CHARACTERS, clean_captions, clean_text


def reason_of(values: Any) -> Reason:
    with pytest.raises(Refused) as caught:
        clean_captions(values)
    return caught.value.reason


def test_captions_become_plain_lines() -> None:
    assert clean_text("  a\tslow\r\nfiddle \x00 tune\x07 ") == "a slow fiddle tune"
    assert clean_text("cafe\u0301") == "caf\u00e9"
    assert clean_text("\ufeffa \u202eflute\u200b") == "a flute"
    assert clean_text("می\u200cخواهم") == "می\u200cخواهم"
    assert clean_text("=SUM(A1:A9)") == "=SUM(A1:A9)"  # text here; only a spreadsheet would run it


def test_blank_and_repeated_captions_are_left_out_in_order() -> None:
    assert clean_captions(["b", " ", "a", "b ", ""]) == ("b", "a")
    assert clean_captions("one text") == ("one text",)


@pytest.mark.parametrize("values", [None, []])
def test_no_caption(values: Any) -> None:
    assert reason_of(values) is Reason.NO_CAPTION


@pytest.mark.parametrize(
    "values",
    [
        "",
        [" \t\n"],
        7,
        {"a": 1},
        ["fine", 3],
        "half \ud83d a pair",
        "x" * (MAX_CHARACTERS + 1),
        "x" * 1_000_000,
        ["a"] * (MAX_CAPTIONS + 1),
    ],
    ids=range(9),
)
def test_bad_captions_are_refused(values: Any) -> None:
    assert reason_of(values) is Reason.BAD_CAPTION


@given(st.text(max_size=200))
def test_cleaning_is_idempotent_and_leaves_writable_text(text: str) -> None:
    cleaned = clean_text(text)
    assert clean_text(cleaned) == cleaned
    assert cleaned == cleaned.strip()
    assert not any(unicodedata.category(character) in ("Cc", "Cs") for character in cleaned)
    cleaned.encode("utf-8")
