"""Bodies as they come in: JSON or a form with a sound, never more of them than is allowed."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect
from starlette.types import Message

from serving import errors
from serving.errors import ApiError, invalid
from serving.schema import MAX_BODY_BYTES, EditRequest, check_fields, printable

JSON, FORM = "application/json", "multipart/form-data"
MAX_FIELDS = 32
_TEXTS = ("prompt", "negative_prompt", "model", "response_format")


@dataclass(frozen=True)
class Upload:
    """A checked form and its sound's bytes."""

    asked: EditRequest
    audio: bytes


def media_type(request: Request) -> str:
    """What the body is declared as, without parameters."""
    return request.headers.get("content-type", "").split(";", 1)[0].strip().lower()


async def read_json(request: Request, seconds: float) -> bytes:
    """A JSON body's bytes.

    Raises:
        ApiError: 415 for another content type, 413 for one that is too large, 408 for one that takes too long.
    """
    if media_type(request) != JSON:
        raise errors.unsupported_media_type(JSON)
    return await _read(request, MAX_BODY_BYTES, seconds)


async def read_form(request: Request, limit: int, seconds: float) -> Upload:
    """A form with the file `audio`.

    Raises:
        ApiError: 413, 408, or 422 for a form that is not as it should be.
    """
    body = await _read(request, limit, seconds)

    async def replay() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    try:
        async with Request(request.scope, replay).form(
            max_files=1, max_fields=MAX_FIELDS, max_part_size=MAX_BODY_BYTES
        ) as form:
            fields: dict[str, Any] = {}
            audio: bytes | None = None
            for name, value in form.multi_items():
                if isinstance(value, UploadFile) != (name == "audio"):
                    raise invalid("audio must be the form's only file.", printable(name))
                if isinstance(value, UploadFile):
                    audio = await value.read()
                elif name in fields and name != "prompt":
                    raise invalid(f"{printable(name)} is named twice.", printable(name))
                else:
                    fields[name] = _also(fields.get(name), _typed(name, value))
    except (MultiPartException, KeyError, ValueError, AssertionError) as error:
        raise ApiError(400, "invalid_form", "The body is no usable form.", hint="Send multipart/form-data.") from error
    except Exception as error:
        if isinstance(error, ApiError):
            raise
        if type(error).__name__ != "HTTPException":
            raise
        raise ApiError(400, "invalid_form", "The body is no usable form.", hint="Send fewer, smaller parts.") from error
    if audio is None:
        raise invalid("audio is required.", "audio", "Add a file to begin from.")
    return Upload(check_fields(fields, EditRequest), audio)


def _also(before: Any, value: Any) -> Any:
    """A field given several times is a list."""
    if before is None:
        return value
    return [*before, value] if isinstance(before, list) else [before, value]


def _typed(name: str, text: str) -> Any:
    """A form knows only text: numbers are read as JSON reads them, so that the same checks hold."""
    if name in _TEXTS:
        return text
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, int | float) else text


async def _read(request: Request, limit: int, seconds: float) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared[:20]) > limit:
        raise errors.too_large(limit)
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    raise errors.too_large(limit)
    except TimeoutError as error:
        raise errors.slow_upload(seconds) from error
    except ClientDisconnect as error:
        raise errors.client_gone() from error
    return bytes(body)
