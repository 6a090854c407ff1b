"""Finished audio and jobs as HTTP answers, and what the OpenAPI document says of them."""

from __future__ import annotations

import base64
from typing import Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse

from serving.errors import ApiError
from serving.jobs import JobAudio, JobView
from serving.service import Delivery
from sonarc.runtime import wave

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
_ERRORS = {
    400: "The body is no JSON, or no form.",
    401: "A valid key is needed.",
    404: "No such model or job.",
    406: "Several clips do not fit into one audio file.",
    408: "The body did not arrive in time.",
    409: "The idempotency key was used for another body.",
    413: "The body is too large.",
    415: "The body is declared as something else.",
    422: "A value is not allowed; `field` names it.",
    429: "The queue is full, or the key has used up what it may; see Retry-After.",
    500: "The audio could not be made.",
    503: "No model is ready.",
    504: "The deadline passed.",
}
_CLIP = {
    "type": "object",
    "properties": {
        "b64": {"type": "string", "format": "byte"},
        "seed": {"type": "integer"},
        "seconds": {"type": "number"},
        "prompt_index": {"type": "integer"},
    },
}
_CLIPS = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "model": {"type": "string"},
        "package_sha256": {"type": "string"},
        "media_type": {"type": "string"},
        "sample_rate": {"type": "integer"},
        "steps": {"type": "integer"},
        "timings": {"type": "object", "additionalProperties": {"type": "number"}},
        "data": {"type": "array", "items": _CLIP},
    },
}
AUDIO_RESPONSE: dict[str, Any] = {
    "description": "The audio; JSON where it is accepted, or where there are several clips.",
    "content": {media: {"schema": {"type": "string", "format": "binary"}} for media in wave.FORMATS.values()}
    | {"application/json": {"schema": _CLIPS}},
}


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Statuses as the OpenAPI document has them."""
    return {
        status: {"description": _ERRORS[status], "content": {"application/json": {"schema": _ERROR_SCHEMA}}}
        for status in statuses
    }


def check_acceptable(request: Request, clips: int) -> bool:
    """Whether the answer is to be JSON.

    Raises:
        ApiError: 406 where several clips are asked for as one audio file.
    """
    accepted = request.headers.get("accept", "")
    if "application/json" in accepted:
        return True
    if clips > 1 and "audio/" in accepted and "*/*" not in accepted:
        hint = "Accept application/json, or ask for one clip."
        raise ApiError(406, "not_acceptable", "Several clips do not fit into one audio file.", hint=hint)
    return clips > 1


def audio_answer(delivery: Delivery) -> Response:
    """One clip's bytes."""
    return Response(delivery.files[0], media_type=delivery.media_type, headers=_headers(delivery))


def json_answer(delivery: Delivery, variations: int) -> Response:
    """All clips in base64."""
    served = delivery.made.served
    document = {
        "id": delivery.request_id,
        "model": f"{served.model}/{served.version}",
        "package_sha256": served.package_sha256,
        "media_type": delivery.media_type,
        "sample_rate": delivery.made.sample_rate,
        "steps": delivery.work.steps,
        "timings": {name: round(seconds, 4) for name, seconds in delivery.timings.seconds().items()},
        "data": [
            {
                "b64": base64.b64encode(file).decode(),
                "seed": clip.seed,
                "seconds": round(seconds, 4),
                "prompt_index": index // variations,
            }
            for index, (file, clip, seconds) in enumerate(
                zip(delivery.files, delivery.work.clips, delivery.seconds, strict=True)
            )
        ],
    }
    return JSONResponse(document, headers=_headers(delivery))


def _headers(delivery: Delivery) -> dict[str, str]:
    made, timings = delivery.made, delivery.timings
    phases = ", ".join(f"{name};dur={1_000 * seconds:.1f}" for name, seconds in timings.seconds().items())
    return {
        "x-sonarc-seed": str(delivery.work.clips[0].seed),
        "x-sonarc-steps": str(delivery.work.steps),
        "x-sonarc-model": f"{made.served.model}/{made.served.version}",
        "x-sonarc-alias": delivery.work.slot,
        "x-sonarc-package": made.served.package_sha256,
        "x-sonarc-seconds": f"{delivery.seconds[0]:.4f}",
        "x-sonarc-batch": str(made.batch),
        "x-sonarc-generate-seconds": f"{made.generate_s:.4f}",
        "x-sonarc-total-seconds": f"{timings.total:.4f}",
        "server-timing": phases,
    }


def job_document(view: JobView) -> dict[str, Any]:
    """A job as clients see it."""
    base = f"/v1/audio/generations/jobs/{view.id}"
    return {
        "id": view.id,
        "object": "audio.generation.job",
        "status": view.status,
        "created": view.created,
        "progress": {"done": view.done, "total": view.total},
        "model": view.model or None,
        "package_sha256": view.package_sha256 or None,
        "response_format": view.response_format,
        "error": view.error or None,
        "generate_seconds": round(view.generate_s, 4),
        "data": [
            {
                "url": f"{base}/audio/{index}" if view.status == "succeeded" else None,
                "seed": seed,
                "seconds": round(seconds, 4),
            }
            for index, (seed, seconds) in enumerate(zip(view.seeds, view.seconds, strict=True))
        ],
    }


def job_audio_answer(audio: JobAudio) -> Response:
    """A clip of a job."""
    media = wave.FORMATS[audio.response_format]
    if audio.response_format == "pcm":
        media = f"{media};rate={audio.sample_rate};channels={audio.channels}"
    return Response(audio.data, media_type=media)
