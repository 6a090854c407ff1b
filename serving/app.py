"""The Ray Serve application: an ingress that admits and answers, and a generator that batches.

client → Ingress (validation, limits, deadline, formats) → Generator (dynamic batches) → Ingress → client
"""

# No `from __future__ import annotations` here: Serve copies the ingress by value while this module is still being
# imported, and FastAPI could then not resolve the names of its parameters' types.

import asyncio
import logging
import re
import secrets
import time
from collections import defaultdict
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, cast

import numpy as np
from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse
from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RayServeException
from ray.serve.handle import DeploymentHandle

from serving import errors, protocol
from serving.loopback import confine
from serving.schema import MAX_SEED, GenerationRequest, parse_request
from serving.state import ServedModel
from sonarc import __version__
from sonarc.contracts.config import ServeConfig
from sonarc.contracts.hashing import sha256_json
from sonarc.runtime import wave

log = logging.getLogger(__name__)

APP = "sonarc"
INFO_TIMEOUT_S = 10.0
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True)
class Job:
    """One clip to make."""

    prompt: str
    seconds: float
    steps: int
    seed: int


@dataclass(frozen=True)
class Made:
    """One clip, or why it could not be made."""

    audio_AS: np.ndarray | None
    served: ServedModel
    generate_s: float
    problem: str = ""


@dataclass(frozen=True)
class Info:
    """What is loaded."""

    served: ServedModel
    sample_rate: int
    channels: int
    max_seconds: float


@serve.deployment(name="generator")
class GeneratorReplica:
    """Holds one loaded package. Requests that wait together, and ask for equally many steps, are generated together.

    `reconfigure` loads another package beside the present one and then switches: requests under way
    end on the model they began with.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        import torch

        confine()
        self._config = ServeConfig.model_validate(config)
        torch.set_num_threads(self._config.threads)
        self._loaded: tuple[Any, ServedModel] | None = None
        self._batched.set_max_batch_size(self._config.max_batch)
        self._batched.set_batch_wait_timeout_s(self._config.batch_wait_s)

    async def reconfigure(self, served: dict[str, Any]) -> None:
        """Load a package, warm it up, and switch to it."""
        from sonarc.runtime.generator import Generator

        wanted = ServedModel.model_validate(served)
        if self._loaded is not None and self._loaded[1].package_sha256 == wanted.package_sha256:
            self._loaded = (self._loaded[0], wanted)
            return
        generator = await asyncio.to_thread(
            Generator.load, wanted.package_uri, sha256=wanted.package_sha256, steps=self._config.steps
        )
        self._loaded = (generator, wanted)

    async def info(self) -> Info:
        """What is loaded."""
        generator, served = self._current()
        return Info(served, generator.sample_rate, generator.channels, generator.max_seconds)

    async def __call__(self, job: Job) -> Made:
        """Make one clip, in a batch with others."""
        return await self._batched(job)  # type: ignore[no-any-return]

    @serve.batch(max_batch_size=8, batch_wait_timeout_s=0.01)  # type: ignore[untyped-decorator]
    async def _batched(self, jobs: list[Job]) -> list[Made]:
        return await asyncio.to_thread(self._make_all, jobs)

    def _current(self) -> tuple[Any, ServedModel]:
        if self._loaded is None:
            raise RuntimeError("no package is loaded")
        return self._loaded

    def _make_all(self, jobs: list[Job]) -> list[Made]:
        by_steps: dict[int, list[int]] = defaultdict(list)
        for index, job in enumerate(jobs):
            by_steps[job.steps].append(index)
        made: dict[int, Made] = {}
        for indices in by_steps.values():
            made |= zip(indices, self._make([jobs[i] for i in indices]), strict=True)
        return [made[index] for index in range(len(jobs))]

    def _make(self, jobs: list[Job]) -> list[Made]:
        """Clips of equal step counts; where a batch fails, each is tried alone, so that only the culprit fails."""
        generator, served = self._current()
        begun = time.monotonic()
        try:
            clips = generator.generate(
                [job.prompt for job in jobs],
                [job.seconds for job in jobs],
                [job.seed for job in jobs],
                steps=jobs[0].steps,
            )
        except Exception as error:
            if len(jobs) > 1:
                return [self._make([job])[0] for job in jobs]
            log.exception("a clip could not be made")
            return [Made(None, served, time.monotonic() - begun, type(error).__name__)]
        seconds = time.monotonic() - begun
        return [
            Made(clip, served, seconds) if np.isfinite(clip).all() else Made(None, served, seconds, "NonFinite")
            for clip in clips
        ]


api = FastAPI(title="Sonarc", version=__version__, docs_url=None, redoc_url=None)
protocol.install(api)


@serve.deployment(name="ingress")
@serve.ingress(api)
class Ingress:
    """Admits requests: checks them, waits for the generator up to the deadline, answers in one error shape."""

    def __init__(self, generator: DeploymentHandle, config: dict[str, Any]) -> None:
        confine()
        self._generator = generator
        self._config = ServeConfig.model_validate(config)
        self._known: Info | None = None

    @api.post(
        "/v1/audio/generations",
        summary="Make audio from a prompt",
        response_class=Response,
        responses={200: protocol.AUDIO_RESPONSE, **protocol.ERROR_RESPONSES},
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": GenerationRequest.model_json_schema()}},
            }
        },
    )
    async def generations(self, request: Request) -> Response:
        """The audio as bytes; `x-sonarc-seed` tells the seed that makes it again."""
        body = await protocol.read_body(request)
        info = self._known or await self._info()
        asked = parse_request(body, info.max_seconds)
        job = Job(
            prompt=asked.prompt,
            seconds=asked.seconds or info.max_seconds,
            steps=asked.steps or self._config.steps,
            seed=secrets.randbelow(MAX_SEED + 1) if asked.seed is None else asked.seed,
        )
        made = await self._within_deadline(job)
        if made.audio_AS is None:
            raise errors.internal()
        if made.served != info.served:
            self._known = None  # the model was swapped: ask again what it can do
        data = await asyncio.to_thread(wave.encode_audio, made.audio_AS, info.sample_rate, asked.response_format)
        headers = {
            "x-sonarc-seed": str(job.seed),
            "x-sonarc-steps": str(job.steps),
            "x-sonarc-model": f"{made.served.model}/{made.served.version}",
            "x-sonarc-package": made.served.package_sha256,
            "x-sonarc-seconds": f"{made.audio_AS.shape[1] / info.sample_rate:.4f}",
            "x-sonarc-generate-seconds": f"{made.generate_s:.4f}",
        }
        return Response(data, media_type=wave.FORMATS[asked.response_format], headers=headers)

    @api.get("/v1/models", summary="The served model")
    async def models(self) -> dict[str, Any]:
        """What is served, and its limits."""
        info = await self._info()
        return {
            "object": "list",
            "data": [
                {
                    "id": info.served.model,
                    "object": "model",
                    "owned_by": "sonarc",
                    "version": info.served.version,
                    "package_sha256": info.served.package_sha256,
                    "sample_rate": info.sample_rate,
                    "channels": info.channels,
                    "max_seconds": info.max_seconds,
                    "default_steps": self._config.steps,
                }
            ],
        }

    @api.get("/healthz", summary="Whether the server runs")
    async def healthz(self) -> dict[str, str]:
        """Answers as long as the process lives."""
        return {"status": "ok"}

    @api.get("/readyz", summary="Whether a model is loaded", responses={503: protocol.ERROR_RESPONSES[503]})
    async def readyz(self) -> dict[str, str]:
        """Answers once a package is loaded and warm."""
        info = await self._info()
        return {
            "status": "ready",
            "model": info.served.model,
            "version": info.served.version,
            "package_sha256": info.served.package_sha256,
        }

    @api.get("/", include_in_schema=False)
    async def playground(self) -> Response:
        """The page for people."""
        page = files("serving").joinpath("static/playground.html").read_text("utf-8")
        policy = "default-src 'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; media-src blob:"
        return HTMLResponse(page, headers={"content-security-policy": policy})

    async def _info(self) -> Info:
        try:
            info: Info = await asyncio.wait_for(self._generator.info.remote(), INFO_TIMEOUT_S)
        except (TimeoutError, RayError, RayServeException, RuntimeError) as error:
            raise errors.not_ready() from error
        self._known = info
        return info

    async def _within_deadline(self, job: Job) -> Made:
        try:
            made: Made = await asyncio.wait_for(self._generator.remote(job), self._config.timeout_s)
            return made
        except BackPressureError as error:
            raise errors.too_busy() from error
        except TimeoutError as error:
            raise errors.timed_out(self._config.timeout_s) from error
        except DeploymentUnavailableError as error:
            raise errors.not_ready() from error


def application(config: ServeConfig, served: ServedModel) -> serve.Application:
    """The application that serves one package.

    Deployed again with the same settings and another package, it swaps the model in place: the code's
    version stays, so that Serve reconfigures the replicas it has instead of starting others.
    """
    settings = config.model_dump(mode="json")
    version = sha256_json([settings, __version__])[:16]
    generator = cast(serve.Deployment, GeneratorReplica).options(
        # The next batch fills while one is generated; beyond that requests wait in the ingress, up to max_queued.
        max_ongoing_requests=2 * config.max_batch,
        max_queued_requests=config.max_queued,
        ray_actor_options={"num_cpus": config.threads},
        user_config=served.model_dump(mode="json"),
        graceful_shutdown_timeout_s=config.timeout_s,
        version=version,
        _internal=True,
    )
    ingress = cast(serve.Deployment, Ingress).options(
        max_ongoing_requests=100_000,
        ray_actor_options={"num_cpus": 0},
        graceful_shutdown_timeout_s=config.timeout_s,
        version=version,
        _internal=True,
    )
    return ingress.bind(generator.bind(settings), settings)
