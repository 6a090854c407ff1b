"""What a client may ask, and how a body becomes a checked request.

Strict on purpose: an unknown field, a number as text, NaN, a lone surrogate or a blank prompt is refused
with the field's name, and no refusal repeats the input.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from serving.errors import ApiError, invalid

MAX_BODY_BYTES = 64 * 1024
MAX_PROMPT_CHARS = 1_000
MAX_STEPS = 50
MAX_SEED = 2**32 - 1
MAX_CLIPS = 32
MIN_SECONDS = 0.1
MAX_GUIDANCE = 20.0

AudioFormat = Literal["wav", "flac", "ogg", "mp3", "pcm"]


def _meaningful(prompt: str) -> str:
    if "\x00" in prompt:
        raise ValueError("holds a NUL character")
    if not prompt.strip():
        raise ValueError("is blank")
    return prompt


Prompt = Annotated[str, Field(max_length=MAX_PROMPT_CHARS), AfterValidator(_meaningful)]
Seconds = Annotated[float, Field(ge=MIN_SECONDS, allow_inf_nan=False)]
Time = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Body(BaseModel):
    """What every body has in common: nothing unknown, nothing converted."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class GenerationRequest(Body):
    """Body of `POST /v1/audio/generations`."""

    prompt: Annotated[
        Prompt | Annotated[list[Prompt], Field(min_length=1, max_length=MAX_CLIPS)],
        Field(examples=["a slow fiddle tune in D major"]),
    ]
    """What it should sound like; a list asks for a clip of each."""
    seconds: Seconds | None = None
    """Length of the audio; by default, and at most, the model's clip length."""
    steps: Annotated[int, Field(ge=1, le=MAX_STEPS)] | None = None
    """Network evaluations: more is slower, and not always better. By default the server's setting."""
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] | None = None
    """The same seed gives the same audio; by default a random one, told in `x-sonarc-seed`. Further clips of the
    request have the seeds after it."""
    n: Annotated[int, Field(ge=1, le=MAX_CLIPS)] = 1
    """Variations of each prompt."""
    negative_prompt: Prompt | None = None
    """What it should not sound like; only a guided model takes it."""
    guidance: Annotated[float, Field(ge=0, le=MAX_GUIDANCE, allow_inf_nan=False)] | None = None
    """Scale of classifier-free guidance, 1 is none; only a guided model takes another."""
    model: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    """An alias (`champion`, `candidate`), a version, or `name/version`; by default what the server routes to."""
    response_format: AudioFormat = "wav"
    """`wav` and `flac`: 16-bit. `pcm`: bare 16-bit little-endian samples. `ogg`: Vorbis."""

    @property
    def prompts(self) -> list[str]:
        """The prompts, one or several."""
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt


class EditRequest(GenerationRequest):
    """Fields of a multipart body, beside the file `audio`."""

    noise: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 1.0
    """How much of the given sound is forgotten; 1: all but what is kept."""
    keep_from: Time | None = None
    """The given sound stays as it is from this second on …"""
    keep_to: Time | None = None
    """… to this one; by default its end."""

    @model_validator(mode="after")
    def _has_a_say(self) -> EditRequest:
        if self.keep is None and self.noise >= 1:
            raise ValueError("noise must be less than 1, or keep_from and keep_to say what stays")
        if self.keep is not None and not self.keep[0] < self.keep[1]:
            raise ValueError("keep_to must be more than keep_from")
        return self

    @property
    def keep(self) -> tuple[float, float] | None:
        """Seconds from … to that stay."""
        if self.keep_from is None and self.keep_to is None:
            return None
        return (self.keep_from or 0.0, float("inf") if self.keep_to is None else self.keep_to)


Asked = TypeVar("Asked", bound=Body)


def parse_request(body: bytes, kind: type[Asked]) -> Asked:
    """The checked request in a JSON body.

    Raises:
        ApiError: 400 for what is no JSON, 422 for a value that is not allowed.
    """
    return check_fields(_parse_json(body), kind)


def check_fields(document: dict[str, Any], kind: type[Asked]) -> Asked:
    """The checked request in plain data.

    Raises:
        ApiError: 422 for a value that is not allowed.
    """
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        raise _explained(error, kind) from None


class _Twice(Exception):
    pass


def _parse_json(body: bytes) -> dict[str, Any]:
    problem = ""
    try:
        document = json.loads(body.decode("utf-8"), object_pairs_hook=_distinct)
    except UnicodeDecodeError:
        problem = "it is not UTF-8"
    except json.JSONDecodeError as error:
        problem = f"{error.msg.lower()} at line {error.lineno}, column {error.colno}"
    except RecursionError:
        raise invalid("The body is nested too deeply.", hint="Send one flat JSON object.") from None
    except _Twice as error:
        name = printable(str(error))
        raise invalid(f"{name} is named twice.", name) from None
    except ValueError:
        problem = "a number in it is too long"
    if problem:
        raise ApiError(400, "invalid_json", f"The body is not usable JSON: {problem}.", hint="Send one JSON object.")
    if not isinstance(document, dict):
        raise invalid("The body is not a JSON object.", hint='Example: {"prompt": "a low drum"}')
    return document


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for name, value in pairs:
        if name in document:
            raise _Twice(name)
        document[name] = value
    return document


_MESSAGES = {
    "extra_forbidden": "is not a field of this request",
    "missing": "is required",
    "string_too_long": f"is longer than {MAX_PROMPT_CHARS} characters",
    "string_unicode": "holds a character that is no valid Unicode",
    "finite_number": "must be a finite number",
}


def _explained(error: ValidationError, kind: type[Body]) -> ApiError:
    """One problem, in words that hold nothing of the input but the (shortened) name of a field."""
    problems = error.errors(include_url=False, include_input=False)
    # Of the alternatives of one field, the one that got furthest says most.
    problem = max((p for p in problems if p["loc"][:1] == problems[0]["loc"][:1]), key=lambda p: len(p["loc"]))
    says = _MESSAGES.get(problem["type"]) or problem["msg"].removeprefix("Value error, ")
    if not problem["loc"]:  # fields that do not go together: the message names them
        return invalid(f"{says[0].upper()}{says[1:]}.", says.split(" ", 1)[0])
    shown = printable(str(problem["loc"][0]))
    known = ", ".join(kind.model_fields)
    hint = f"Known fields: {known}." if problem["type"] == "extra_forbidden" else "See /openapi.json."
    return invalid(f"{shown} {says[0].lower()}{says[1:]}.", shown, hint)


def printable(name: str) -> str:
    """Text a client made up, short and safe to show."""
    shown = "".join(c if c.isprintable() else "?" for c in name.encode("utf-8", "replace").decode())
    return shown if len(shown) <= 40 else shown[:37] + "..."
