"""The routes. `build_api(service)` is the whole application, under Serve and in tests alike."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import AsyncIterator
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from serving import answers, bodies, errors
from serving.adapters import SOUND, SPEECH, add_adapters
from serving.answers import error_responses
from serving.doorkeeper import Places
from serving.errors import ApiError
from serving.guard import Guard, request_id
from serving.jobs import JobView, Order
from serving.schema import EditRequest, GenerationRequest, parse_request
from serving.service import Exchange, Service
from serving.work import Denied, Loaded
from sonarc import __version__

GENERATIONS, JOBS = "/v1/audio/generations", "/v1/audio/generations/jobs"
JOB = f"{JOBS}/{{job_id}}"
_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_MAKING = error_responses(400, 401, 404, 406, 408, 413, 415, 422, 429, 500, 503, 504)
_POLICY = "default-src 'self'; media-src blob:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
_ASSETS = {"playground.css": "text/css", "playground.js": "text/javascript", "sound.js": "text/javascript"}


def build_api(service: Service) -> ASGIApp:
    """The application."""
    api = FastAPI(title="Sonarc", version=__version__, docs_url=None, redoc_url=None)
    api.exception_handler(ApiError)(_refuse)
    api.exception_handler(HTTPException)(_http_error)
    _add_generations(api, service)
    _add_jobs(api, service)
    add_adapters(api, service)
    _add_state(api, service)
    config = service.config
    places = config.replicas * (config.max_queued + config.max_batch)
    return Guard(Places(api, places, (GENERATIONS, SPEECH, SOUND)), config.max_upload_bytes)


async def _refuse(request: Request, error: ApiError) -> Response:
    return JSONResponse(error.document(request_id(request.scope)), error.status, error.headers)


async def _http_error(request: Request, error: HTTPException) -> Response:
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
    shown = ApiError(error.status_code, code, f"{error.detail}.", None, "See /openapi.json.", dict(error.headers or {}))
    return await _refuse(request, shown)


def _bodies(json_kind: type[GenerationRequest]) -> dict[str, Any]:
    """The OpenAPI document's request body: JSON, or a form with a sound."""
    form = EditRequest.model_json_schema()
    form["properties"]["audio"] = {"type": "string", "format": "binary"}
    form["required"] = [*form.get("required", []), "audio"]
    return {
        "requestBody": {
            "required": True,
            "content": {
                bodies.JSON: {"schema": json_kind.model_json_schema()},
                bodies.FORM: {"schema": form},
            },
        }
    }


async def _asked(service: Service, request: Request) -> tuple[GenerationRequest, bytes | None]:
    """The checked body, and the sound in it."""
    config = service.config
    kind = bodies.media_type(request)
    if kind == bodies.FORM:
        upload = await bodies.read_form(request, config.max_upload_bytes, config.upload_s)
        return upload.asked, upload.audio
    if kind != bodies.JSON:
        raise errors.unsupported_media_type(f"{bodies.JSON} or {bodies.FORM}")
    return parse_request(await bodies.read_json(request, config.upload_s), GenerationRequest), None


def _add_generations(api: FastAPI, service: Service) -> None:
    @api.post(
        GENERATIONS,
        summary="Make audio from a prompt",
        response_class=Response,
        responses={200: answers.AUDIO_RESPONSE, **_MAKING},
        openapi_extra=_bodies(GenerationRequest),
    )
    async def generations(request: Request) -> Response:
        """The audio as bytes, or as JSON; `x-sonarc-seed` tells the seed that makes it again."""
        async with service.exchange(request, GENERATIONS) as exchange:
            asked, audio = await _asked(service, request)
            as_json = answers.check_acceptable(request, len(asked.prompts) * asked.n)
            delivery = await service.deliver(asked, exchange, audio)
            return answers.json_answer(delivery, asked.n) if as_json else answers.audio_answer(delivery)


def _add_jobs(api: FastAPI, service: Service) -> None:
    coordinator = service.coordinator

    @api.post(
        JOBS,
        status_code=202,
        summary="Start a job",
        response_class=JSONResponse,
        responses={409: error_responses(409)[409], **_MAKING},
        openapi_extra=_bodies(GenerationRequest)
        | {"parameters": [{"name": "Idempotency-Key", "in": "header", "schema": {"type": "string"}}]},
    )
    async def start_job(request: Request) -> Response:
        """Audio that takes longer than a connection should stay open. The same Idempotency-Key is the same job."""
        async with service.exchange(request, JOBS) as exchange:
            named = _idempotency_key(request)
            asked, audio = await _asked(service, request)
            work = await service.work(asked, exchange, audio)
            lease = exchange.hand_over_lease()
            same = hashlib.sha256(asked.model_dump_json().encode() + (audio or b"")).hexdigest()
            order = Order(work, asked.response_format, exchange.key.id, named, same, lease)
            started = await coordinator.start_job(order)
            if isinstance(started, Denied):
                if started.limit == "idempotency":
                    hint = "Use another Idempotency-Key."
                    raise ApiError(409, "idempotency_conflict", "This key came with another body.", None, hint)
                raise errors.limited(started.limit, started.retry_after_s)
            exchange.report = exchange.reported(202)
            location = {"location": f"{JOBS}/{started.id}"}
            return JSONResponse(answers.job_document(started), 202, location)

    @api.get(JOB, summary="How a job stands", responses=error_responses(401, 404))
    async def job(request: Request, job_id: str) -> dict[str, Any]:
        """`status` is queued, running, succeeded, failed or cancelled; `data` says where the audio is."""
        async with service.exchange(request, JOB) as exchange:
            return answers.job_document(await _found(exchange, job_id))

    @api.delete(JOB, status_code=204, summary="Cancel or forget a job", responses=error_responses(401, 404))
    async def remove_job(request: Request, job_id: str) -> Response:
        """What it was making is left at its next step."""
        async with service.exchange(request, JOB) as exchange:
            if not await coordinator.remove_job(job_id, exchange.key.id):
                raise errors.job_not_found()
            return Response(status_code=204)

    @api.get(
        f"{JOB}/audio/{{index}}",
        summary="A clip of a finished job",
        response_class=Response,
        responses={200: answers.AUDIO_RESPONSE, **error_responses(401, 404)},
        openapi_extra={"parameters": [{"name": "index", "in": "path", "required": True, "schema": {"type": "string"}}]},
    )
    async def job_audio(request: Request, job_id: str) -> Response:
        """Bytes of the format that the job was asked for."""
        async with service.exchange(request, f"{JOB}/audio") as exchange:
            index = request.path_params["index"]
            place = int(index) if index.isascii() and index.isdigit() and len(index) < 4 else -1
            audio = await coordinator.job_audio(job_id, exchange.key.id, place)
            if audio is None:
                raise errors.job_not_found()
            return answers.job_audio_answer(audio)

    @api.get(
        f"{JOB}/events",
        summary="Follow a job",
        response_class=StreamingResponse,
        responses={
            200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}},
            **error_responses(401, 404),
        },
    )
    async def job_events(request: Request, job_id: str) -> Response:
        """Server-sent events named after the status; the data is what `GET` of the job would answer."""
        async with service.exchange(request, f"{JOB}/events") as exchange:
            await _found(exchange, job_id)
            owner = exchange.key.id

            async def stream() -> AsyncIterator[str]:
                async for view in coordinator.job_events(job_id, owner):
                    yield f"event: {view.status}\ndata: {json.dumps(answers.job_document(view))}\n\n"

            return StreamingResponse(stream(), media_type="text/event-stream", headers={"cache-control": "no-store"})

    async def _found(exchange: Exchange, job_id: str) -> JobView:
        view = await coordinator.job(job_id, exchange.key.id)
        if view is None:
            raise errors.job_not_found()
        return view


def _idempotency_key(request: Request) -> str:
    named = request.headers.get("idempotency-key", "")
    if named and not _IDEMPOTENCY_KEY.fullmatch(named):
        raise errors.invalid("Idempotency-Key must be 1 to 255 printable ASCII characters.", "Idempotency-Key")
    return named


def _add_state(api: FastAPI, service: Service) -> None:
    @api.get("/v1/models", summary="The served models", responses=error_responses(401, 503))
    async def models(request: Request) -> dict[str, Any]:
        """What is served, and its limits."""
        async with service.exchange(request, "/v1/models"):
            info = await service.info()
            served = [_described(service, "champion", info.champion)]
            if info.candidate is not None:
                why = await service.coordinator.backed_off()
                served.append(_described(service, "candidate", info.candidate) | {"backed_off": why or None})
            return {"object": "list", "data": served}

    @api.get("/healthz", summary="Whether the server runs")
    async def healthz() -> dict[str, str]:
        """Answers as long as the process lives."""
        return {"status": "ok"}

    @api.get("/readyz", summary="Whether a model is loaded", responses=error_responses(503))
    async def readyz() -> dict[str, str]:
        """Answers once a package is loaded and warm."""
        served = (await service.info()).champion.served
        return {
            "status": "ready",
            "model": served.model,
            "version": served.version,
            "package_sha256": served.package_sha256,
        }

    @api.get("/metrics", summary="Prometheus' metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Requests, rejections, phases, batches, the queue, the real-time factor, jobs."""
        return PlainTextResponse(await service.metrics(), media_type="text/plain; version=0.0.4")

    @api.get("/", include_in_schema=False)
    async def playground() -> Response:
        """The page for people."""
        return HTMLResponse(_static("playground.html"), headers={"content-security-policy": _POLICY})

    @api.get("/assets/{name}", include_in_schema=False)
    async def asset(name: str) -> Response:
        """What the page loads; nothing comes from anywhere else."""
        if name not in _ASSETS:
            raise HTTPException(404, "Not Found")
        return Response(_static(name), media_type=_ASSETS[name], headers={"cache-control": "no-cache"})


def _static(name: str) -> str:
    return files("serving").joinpath("static", name).read_text("utf-8")


def _described(service: Service, slot: str, loaded: Loaded) -> dict[str, Any]:
    served = loaded.served
    return {
        "id": served.model if slot == "champion" else f"{served.model}/{slot}",
        "object": "model",
        "owned_by": "sonarc",
        "alias": slot,
        "version": served.version,
        "package_sha256": served.package_sha256,
        "sample_rate": loaded.sample_rate,
        "channels": loaded.channels,
        "max_seconds": loaded.max_seconds,
        "default_steps": service.config.steps,
        "guided": loaded.guided,
    }
