"""What every route shares: request ids, the body's limits, the one error shape."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from serving import errors
from serving.errors import ApiError
from serving.schema import MAX_BODY_BYTES
from sonarc.runtime import wave

log = logging.getLogger(__name__)

LONGEST_ID = 200
_ERROR_SCHEMA = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message", "field", "hint", "request_id"],
            "properties": {
                "code": {"type": "string"},
                "message": {"type": "string"},
                "field": {"type": ["string", "null"]},
                "hint": {"type": "string"},
                "request_id": {"type": "string"},
            },
        }
    },
}
ERROR_RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"description": text, "content": {"application/json": {"schema": _ERROR_SCHEMA}}}
    for status, text in {
        400: "The body is no JSON.",
        413: "The body is too large.",
        415: "The body is not declared as JSON.",
        422: "A value is not allowed; `field` names it.",
        429: "The queue is full; see Retry-After.",
        500: "The audio could not be made.",
        503: "No model is ready.",
        504: "The deadline passed.",
    }.items()
}
AUDIO_RESPONSE: dict[str, Any] = {
    "description": "The audio, 16-bit.",
    "content": {media: {"schema": {"type": "string", "format": "binary"}} for media in wave.FORMATS.values()},
}


def request_id(request: Request) -> str:
    """The id that Serve's proxy gives every request, or takes over from the client, and sets on the answer."""
    return request.headers.get("x-request-id", "")[:LONGEST_ID]


async def _harden(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
    response = await answer(request)
    response.headers["x-content-type-options"] = "nosniff"
    return response


async def _refuse(request: Request, error: ApiError) -> Response:
    return JSONResponse(error.document(request_id(request)), error.status, error.headers)


async def _http_error(request: Request, error: HTTPException) -> Response:
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
    shown = ApiError(error.status_code, code, f"{error.detail}.", None, "See /openapi.json.", dict(error.headers or {}))
    return await _refuse(request, shown)


async def _unexpected(request: Request, error: Exception) -> Response:
    log.error("request %s failed", request_id(request), exc_info=error)
    return await _refuse(request, errors.internal())


async def read_body(request: Request) -> bytes:
    """The body of a JSON request, never more of it than is allowed.

    Raises:
        ApiError: 415 for another content type, 413 for a body that is too large.
    """
    kind = request.headers.get("content-type", "").split(";", 1)[0].strip().lower()
    if kind != "application/json":
        hint = "Set Content-Type: application/json."
        raise ApiError(415, "unsupported_media_type", "The body must be JSON.", hint=hint)
    too_large = ApiError(
        413, "too_large", f"The body is larger than {MAX_BODY_BYTES} bytes.", hint="Send a shorter prompt."
    )
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared[:20]) > MAX_BODY_BYTES:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise too_large
    return bytes(body)


def install(api: FastAPI) -> None:
    """Give an application the common headers and the error shape."""
    api.middleware("http")(_harden)
    api.exception_handler(ApiError)(_refuse)
    api.exception_handler(HTTPException)(_http_error)
    api.exception_handler(Exception)(_unexpected)
