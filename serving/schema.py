"""What a client may ask, and how a body becomes a checked request.

Strict on purpose: an unknown field, a number as text, NaN, a lone surrogate or a blank prompt is refused
with the field's name, and no refusal repeats the input.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from serving.errors import ApiError

MAX_BODY_BYTES = 64 * 1024
MAX_PROMPT_CHARS = 1_000
MAX_STEPS = 50
MAX_SEED = 2**32 - 1
MIN_SECONDS = 0.1


class GenerationRequest(BaseModel):
    """Body of `POST /v1/audio/generations`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    prompt: Annotated[str, Field(max_length=MAX_PROMPT_CHARS, examples=["a slow fiddle tune in D major"])]
    """What it should sound like."""
    seconds: Annotated[float, Field(ge=MIN_SECONDS, allow_inf_nan=False)] | None = None
    """Length of the audio; by default, and at most, the model's clip length."""
    steps: Annotated[int, Field(ge=1, le=MAX_STEPS)] | None = None
    """Network evaluations: more is slower, and not always better. By default the server's setting."""
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] | None = None
    """The same seed gives the same audio; by default a random one, told in `x-sonarc-seed`."""
    response_format: Literal["wav", "flac"] = "wav"
    """`wav`: 16-bit PCM. `flac`: the same, packed without loss."""

    @field_validator("prompt")
    @classmethod
    def _meaningful(cls, prompt: str) -> str:
        if "\x00" in prompt:
            raise ValueError("holds a NUL character")
        if not prompt.strip():
            raise ValueError("is blank")
        return prompt


def parse_request(body: bytes, max_seconds: float) -> GenerationRequest:
    """The checked request in a body.

    Args:
        body: JSON in UTF-8.
        max_seconds: longest audio the model makes.

    Raises:
        ApiError: 400 for what is no JSON object, 422 for a value that is not allowed.
    """
    document = _parse_json(body)
    try:
        request = GenerationRequest.model_validate(document)
    except ValidationError as error:
        raise _explained(error) from None
    if request.seconds is not None and request.seconds > max_seconds:
        raise ApiError(
            422, "invalid_value", f"seconds must be at most {max_seconds:.3f}.", "seconds", "Ask for shorter audio."
        )
    return request


def _parse_json(body: bytes) -> dict[str, Any]:
    problem = ""
    try:
        document = json.loads(body.decode("utf-8"), object_pairs_hook=_distinct)
    except UnicodeDecodeError:
        problem = "it is not UTF-8"
    except json.JSONDecodeError as error:
        problem = f"{error.msg.lower()} at line {error.lineno}, column {error.colno}"
    except RecursionError:
        problem = "it is nested too deeply"
    except ValueError as error:
        problem = str(error)
    if problem:
        raise ApiError(400, "invalid_json", f"The body is not usable JSON: {problem}.", hint="Send one JSON object.")
    if not isinstance(document, dict):
        raise ApiError(422, "invalid_value", "The body is not a JSON object.", hint='Example: {"prompt": "a low drum"}')
    return document


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("it names a field twice")
    return document


_MESSAGES = {
    "extra_forbidden": "is not a field of this request",
    "missing": "is required",
    "string_too_long": f"is longer than {MAX_PROMPT_CHARS} characters",
    "string_unicode": "holds a character that is no valid Unicode",
    "finite_number": "must be a finite number",
}


def _explained(error: ValidationError) -> ApiError:
    """The first problem, in words that hold nothing of the input but the (shortened) name of a field."""
    problem = error.errors(include_url=False, include_input=False)[0]
    field = ".".join(str(part) for part in problem["loc"][:1]) or None
    shown = _printable(field or "body")
    says = _MESSAGES.get(problem["type"]) or problem["msg"].removeprefix("Value error, ")
    says = says[0].lower() + says[1:]
    known = ", ".join(GenerationRequest.model_fields)
    hint = f"Known fields: {known}." if problem["type"] == "extra_forbidden" else "See /openapi.json."
    return ApiError(422, "invalid_value", f"{shown} {says}.", shown if field else None, hint)


def _printable(name: str) -> str:
    """A field name a client made up, safe to show."""
    shown = "".join(c if c.isprintable() else "?" for c in name.encode("utf-8", "replace").decode())
    return shown if len(shown) <= 40 else shown[:37] + "..."
