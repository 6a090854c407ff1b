"""Routes shaped like OpenAI's and ElevenLabs', so that their clients get audio from here.

A setting that would change the sound and cannot be honoured is refused; what only chooses a voice is not.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import FastAPI, Request, Response
from pydantic import Field

from serving import answers, bodies
from serving.answers import error_responses
from serving.errors import invalid
from serving.schema import AudioFormat, Body, GenerationRequest, Prompt, Seconds, parse_request
from serving.service import Service

SPEECH, SOUND = "/v1/audio/speech", "/v1/sound-generation"
_MAKING = error_responses(400, 401, 404, 408, 413, 415, 422, 429, 500, 503, 504)


class SpeechRequest(Body):
    """Body of OpenAI's `POST /v1/audio/speech`."""

    model: Annotated[str, Field(min_length=1, max_length=100)]
    input: Prompt
    """The prompt."""
    voice: Annotated[str, Field(max_length=100)] | None = None
    """Taken and not used: sounds have no voices."""
    response_format: AudioFormat = "mp3"
    speed: Annotated[float, Field(ge=1, le=1)] = 1.0

    def generation(self) -> GenerationRequest:
        """The same in our terms."""
        return GenerationRequest(prompt=self.input, model=self.model, response_format=self.response_format)


class SoundRequest(Body):
    """Body of ElevenLabs' `POST /v1/sound-generation`."""

    text: Prompt
    """The prompt."""
    duration_seconds: Seconds | None = None
    prompt_influence: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    """Taken and not used: the model follows its prompt without guidance."""
    loop: Literal[False] = False
    model_id: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    """One of ours; names that begin with `eleven_` mean the default."""

    def generation(self, response_format: AudioFormat) -> GenerationRequest:
        """The same in our terms."""
        theirs = self.model_id is not None and self.model_id.startswith("eleven_")
        return GenerationRequest(
            prompt=self.text,
            seconds=self.duration_seconds,
            model=None if theirs else self.model_id,
            response_format=response_format,
        )


def add_adapters(api: FastAPI, service: Service) -> None:
    """Add both routes."""

    @api.post(
        SPEECH,
        summary="As OpenAI's",
        response_class=Response,
        responses={200: answers.AUDIO_RESPONSE, **_MAKING},
        openapi_extra=_json_body(SpeechRequest),
    )
    async def speech(request: Request) -> Response:
        """The audio as bytes."""
        async with service.exchange(request, SPEECH) as exchange:
            asked = parse_request(await bodies.read_json(request, service.config.upload_s), SpeechRequest)
            return answers.audio_answer(await service.deliver(asked.generation(), exchange))

    @api.post(
        SOUND,
        summary="As ElevenLabs'",
        response_class=Response,
        responses={200: answers.AUDIO_RESPONSE, **_MAKING},
        openapi_extra=_json_body(SoundRequest)
        | {"parameters": [{"name": "output_format", "in": "query", "schema": {"type": "string"}}]},
    )
    async def sound(request: Request) -> Response:
        """The audio as bytes."""
        async with service.exchange(request, SOUND) as exchange:
            asked = parse_request(await bodies.read_json(request, service.config.upload_s), SoundRequest)
            rate = (await service.info()).champion.sample_rate
            kind = _output_format(request.query_params.get("output_format", f"mp3_{rate}_128"), rate)
            return answers.audio_answer(await service.deliver(asked.generation(kind), exchange))


def _output_format(named: str, sample_rate: int) -> AudioFormat:
    """ElevenLabs' `codec_rate_bitrate` in our terms; the bit rate is the encoder's own."""
    codec, _, rest = named.partition("_")
    rate = rest.partition("_")[0]
    known: dict[str, AudioFormat] = {"mp3": "mp3", "pcm": "pcm", "wav": "wav"}
    if codec not in known or rate != str(sample_rate):
        allowed = ", ".join(f"{name}_{sample_rate}" for name in known)
        raise invalid(f"output_format must be one of {allowed}.", "output_format")
    return known[codec]


def _json_body(kind: type[Body]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {bodies.JSON: {"schema": kind.model_json_schema()}}}}
