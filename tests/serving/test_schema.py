"""Whatever a client sends is either a checked request or a refusal in the one shape that repeats none of it."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import ApiError, timed_out, too_busy
from serving.schema import (
    MAX_CLIPS,
    MAX_PROMPT_CHARS,
    MAX_SEED,
    EditRequest,
    GenerationRequest,
    check_fields,
    parse_request,
)


def refusal(body: Any) -> ApiError:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(ApiError) as caught:
        parse_request(data, GenerationRequest)
    return caught.value


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": " \t\n\u2003"}, "prompt"),
        ({"prompt": "a\x00b"}, "prompt"),
        ({"prompt": "\ud800"}, "prompt"),
        ({"prompt": "x" * (MAX_PROMPT_CHARS + 1)}, "prompt"),
        ({"prompt": 7}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a", " "]}, "prompt"),
        ({"prompt": ["a", 7]}, "prompt"),
        ({"prompt": ["a"] * (MAX_CLIPS + 1)}, "prompt"),
        ({"n": 0}, "n"),
        ({"n": True}, "n"),
        ({"guidance": math.nan}, "guidance"),
        ({"guidance": -1}, "guidance"),
        ({"negative_prompt": "\x00"}, "negative_prompt"),
        ({"model": ""}, "model"),
        ({"noise": 0.5}, "noise"),
        ({"prompt": None}, "prompt"),
        ({"seconds": math.nan}, "seconds"),
        ({"seconds": math.inf}, "seconds"),
        ({"seconds": -math.inf}, "seconds"),
        ({"seconds": 0}, "seconds"),
        ({"seconds": -1.0}, "seconds"),
        ({"seconds": "1"}, "seconds"),
        ({"seconds": True}, "seconds"),
        ({"seed": True}, "seed"),
        ({"seed": "7"}, "seed"),
        ({"seed": 7.0}, "seed"),
        ({"seed": -1}, "seed"),
        ({"seed": MAX_SEED + 1}, "seed"),
        ({"seed": 10**400}, "seed"),
        ({"steps": 0}, "steps"),
        ({"steps": 10**6}, "steps"),
        ({"steps": False}, "steps"),
        ({"response_format": "aac"}, "response_format"),
        ({"response_format": None}, "response_format"),
        ({"duration": 3}, "duration"),
        ({"Prompt": "x"}, "Prompt"),
    ],
)
def test_wrong_value_is_422_and_named(change: dict[str, Any], field: str) -> None:
    error = refusal({"prompt": "a kick drum"} | change)
    assert (error.status, error.code, error.field) == (422, "invalid_value", field)
    assert field in error.message


def test_missing_prompt_is_named() -> None:
    assert refusal({}).field == "prompt"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b'{"prompt": "a"} extra',
        b'{"seed": ' + b"9" * 5_000 + b"}",
    ],
)
def test_what_is_no_json_is_400(body: bytes) -> None:
    error = refusal(body)
    assert (error.status, error.code) == (400, "invalid_json")
    assert len(error.message) < 200


def test_twice_named_field_is_named() -> None:
    assert refusal(b'{"prompt": "a", "seed": 1, "seed": 2}').field == "seed"


@pytest.mark.parametrize("body", [b"[" * 20_000 + b"]" * 20_000, b'{"prompt": ' + b'{"a":' * 20_000])
def test_deep_json_is_422(body: bytes) -> None:
    assert refusal(body).status == 422


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({}, "noise"),
        ({"noise": 0.0}, "noise"),
        ({"noise": 1.5}, "noise"),
        ({"keep_from": 1.0, "keep_to": 0.5}, "keep_to"),
        ({"keep_from": -1.0}, "keep_from"),
        ({"keep_to": math.inf}, "keep_to"),
    ],
)
def test_edit_that_makes_no_sense_is_named(change: dict[str, Any], field: str) -> None:
    with pytest.raises(ApiError) as caught:
        check_fields({"prompt": "a kick drum"} | change, EditRequest)
    assert (caught.value.status, caught.value.field) == (422, field)


@pytest.mark.parametrize("body", [b"null", b"[]", b'"x"', b"7"])
def test_json_that_is_no_object_is_422(body: bytes) -> None:
    assert refusal(body).status == 422


def test_1e999_is_not_a_number_of_seconds() -> None:
    assert refusal(b'{"prompt": "x", "seconds": 1e999}').field == "seconds"


def test_refusal_repeats_neither_prompt_nor_unknown_name_at_length() -> None:
    secret = "correct horse battery staple " * 40
    assert secret[:30] not in json.dumps(refusal({"prompt": secret}).document("id"))
    name = refusal({"prompt": "x", "y" * 5_000 + "\r\nSet-Cookie: a": 1})
    assert len(name.message) < 200 and "\n" not in name.message


def test_defaults_are_left_to_the_server() -> None:
    request = parse_request(b'{"prompt": "a kick drum", "seconds": 1}', GenerationRequest)
    assert request == GenerationRequest(prompt="a kick drum", seconds=1.0)
    assert (request.steps, request.seed, request.response_format) == (None, None, "wav")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from([*GenerationRequest.model_fields, "other"]) | st.text(max_size=8)


@given(st.dictionaries(FIELDS, JSON, max_size=5) | JSON)
def test_any_json_is_accepted_or_refused_cleanly(document: Any) -> None:
    try:
        request = parse_request(json.dumps(document).encode(), GenerationRequest)
    except ApiError as error:
        assert error.status in (400, 422)
        shape = json.loads(json.dumps(error.document("id")).encode("utf-8"))["error"]
        assert set(shape) == {"code", "message", "field", "hint", "request_id"}
    else:
        assert all(prompt.strip() and prompt.encode("utf-8") for prompt in request.prompts)
        assert request.seconds is None or request.seconds > 0


@given(st.binary(max_size=200))
def test_any_bytes_are_accepted_or_refused_cleanly(body: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        parse_request(body, GenerationRequest)
    assert caught.value.status in (400, 422)


def test_refusals_that_pass_tell_when_to_come_back() -> None:
    assert (too_busy().status, timed_out(60).status) == (429, 504)
    assert int(too_busy().headers["Retry-After"]) >= 1
