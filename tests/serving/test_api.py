"""The routes, in this process, with a real generator behind them."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import AsyncIterator

import httpx
import numpy as np
import pytest
import soundfile
from endpoint import GENERATIONS, Endpoint, heard, raw, refused, running
from tiny_package import SAMPLES

from serving.schema import MAX_BODY_BYTES
from serving.state import ServedModel

pytestmark = pytest.mark.anyio

RATE = 44_100
Served = tuple[ServedModel, ServedModel]


@pytest.fixture(scope="module")
async def endpoint(served: Served) -> AsyncIterator[Endpoint]:
    async with running(*served, batch_wait_s=0.05, max_upload_bytes=200_000, upload_s=0.5) as endpoint:
        yield endpoint


def tone(seconds: float = 0.5) -> np.ndarray:
    return np.tile(0.3 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * RATE)) / RATE), (2, 1)).T


def wav(audio_SA: np.ndarray, rate: int = RATE) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, audio_SA, rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


async def test_audio_and_what_its_headers_tell(endpoint: Endpoint, served: Served) -> None:
    answer = await endpoint.ask()
    audio_SA, rate = heard(answer.content)
    assert (answer.status_code, rate, audio_SA.shape) == (200, RATE, (round(0.2 * RATE), 2))
    told = answer.headers
    assert (told["content-type"], told["x-sonarc-seed"], told["x-sonarc-steps"]) == ("audio/wav", "1", "2")
    assert (told["x-sonarc-model"], told["x-sonarc-package"]) == ("sonarc/3", served[0].package_sha256)
    assert float(told["x-sonarc-seconds"]) == pytest.approx(0.2, abs=1e-3)
    phases = {part.split(";dur=")[0]: float(part.split(";dur=")[1]) for part in told["server-timing"].split(", ")}
    assert set(phases) == {"admit", "queue", "generate", "encode", "total"}
    assert 0 < phases["generate"] <= phases["total"]
    assert told["x-request-id"]


async def test_a_seed_is_the_same_bytes_alone_and_none_is_another_each_time(endpoint: Endpoint) -> None:
    assert (await endpoint.ask()).content == (await endpoint.ask()).content
    free = [await endpoint.ask({"seed": None}) for _ in range(2)]
    assert free[0].headers["x-sonarc-seed"] != free[1].headers["x-sonarc-seed"]
    again = await endpoint.ask({"seed": int(free[0].headers["x-sonarc-seed"])})
    assert again.content == free[0].content


async def test_requests_that_come_together_are_made_together(endpoint: Endpoint) -> None:
    answers = await asyncio.gather(*(endpoint.ask({"seed": seed}) for seed in range(4)))
    assert {answer.headers["x-sonarc-batch"] for answer in answers} == {"4"}
    assert answers[1].content == (await endpoint.ask()).content


@pytest.mark.parametrize(
    ("kind", "media"), [("flac", "audio/flac"), ("ogg", "audio/ogg"), ("mp3", "audio/mpeg")]
)  # fmt: skip
async def test_formats(endpoint: Endpoint, kind: str, media: str) -> None:
    answer = await endpoint.ask({"response_format": kind, "seconds": 0.5})
    audio_SA, rate = heard(answer.content)
    assert (answer.headers["content-type"], rate, audio_SA.shape[1]) == (media, RATE, 2)
    assert abs(len(audio_SA) - 0.5 * RATE) < 3_000 and np.abs(audio_SA).max() > 0.01


async def test_pcm_says_what_its_bytes_are(endpoint: Endpoint) -> None:
    answer = await endpoint.ask({"response_format": "pcm"})
    assert answer.headers["content-type"] == f"audio/pcm;rate={RATE};channels=2"
    samples_SA = np.frombuffer(answer.content, "<i2").reshape(-1, 2) / 2**15
    np.testing.assert_allclose(samples_SA, heard((await endpoint.ask()).content)[0], atol=1e-6)


async def test_several_clips_come_as_json_each_with_the_seed_that_makes_it_alone(endpoint: Endpoint) -> None:
    asked = {"prompt": ["a kick drum", "bells"], "n": 2, "seed": 5}
    document = (await endpoint.ask(asked)).json()
    assert [(clip["seed"], clip["prompt_index"]) for clip in document["data"]] == [(5, 0), (6, 0), (7, 1), (8, 1)]
    third = await endpoint.ask({"prompt": "bells", "seed": 7})
    assert base64.b64decode(document["data"][2]["b64"]) == third.content
    assert document["media_type"] == "audio/wav" and document["timings"]["generate"] > 0
    one = await endpoint.ask(headers={"accept": "application/json"})
    assert len(one.json()["data"]) == 1
    refused(await endpoint.ask({"n": 2}, headers={"accept": "audio/wav"}), 406, "not_acceptable")


async def test_sound_to_begin_from(endpoint: Endpoint) -> None:
    files = {"audio": ("tone.wav", wav(tone()), "audio/wav")}
    fields = {"prompt": "bells", "seconds": "0.5", "steps": "2", "seed": "1", "noise": "0.05"}
    near = await endpoint.client.post(GENERATIONS, data=fields, files=files)
    far = await endpoint.client.post(GENERATIONS, data=fields | {"noise": "0.95"}, files=files)
    assert (near.status_code, far.status_code) == (200, 200)
    assert near.content != far.content
    whole = fields | {"noise": "1", "keep_from": "0", "keep_to": "9"}
    kept = [await endpoint.client.post(GENERATIONS, data=whole | {"seed": seed}, files=files) for seed in ("1", "2")]
    one_SA, two_SA = (heard(answer.content)[0] for answer in kept)
    np.testing.assert_allclose(one_SA, two_SA, atol=0.02)  # all of it stays, whatever the seed


@pytest.mark.parametrize(
    ("fields", "audio", "status", "field"),
    [
        ({"noise": "0.5"}, None, 422, "audio"),
        ({}, wav(tone()), 422, "noise"),
        ({"noise": "nan"}, wav(tone()), 422, "noise"),
        ({"noise": "0.5", "seed": "7.5"}, wav(tone()), 422, "seed"),
        ({"noise": "0.5", "seed": "true"}, wav(tone()), 422, "seed"),
        ({"noise": "0.5", "extra": "1"}, wav(tone()), 422, "extra"),
        ({"noise": "0.5"}, b"<html>no audio</html>", 422, "audio"),
        ({"noise": "0.5"}, b"", 422, "audio"),
        ({"noise": "0.5"}, wav(tone())[:60], 422, "audio"),
        ({"noise": "0.5"}, bytes(200_001), 413, None),
    ],
)
async def test_forms_that_are_wrong_are_named(
    endpoint: Endpoint, fields: dict[str, str], audio: bytes | None, status: int, field: str | None
) -> None:
    files = {"audio": ("x.wav", audio, "audio/wav")} if audio is not None else {"other": ("x", b"", "text/plain")}
    if audio is None:
        files = {}
    data = {"prompt": "bells", "seconds": "0.2"} | fields
    headers = {"content-type": "multipart/form-data; boundary=b"} if not files else {}
    content = b"".join(
        f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in data.items()
    )
    answer = (
        await endpoint.client.post(GENERATIONS, data=data, files=files)
        if files
        else await endpoint.client.post(GENERATIONS, content=content + b"--b--\r\n", headers=headers)
    )
    refused(answer, status, field=field)


async def test_form_that_is_no_form(endpoint: Endpoint) -> None:
    for kind in ("multipart/form-data", "multipart/form-data; boundary=b"):
        answer = await endpoint.client.post(GENERATIONS, content=b"\x00--b rubbish", headers={"content-type": kind})
        assert answer.status_code in (400, 422)
        refused(answer, answer.status_code)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"seconds": 99}, "seconds"),
        ({"n": 9}, "n"),
        ({"prompt": ["x"] * 9}, "prompt"),
        ({"guidance": 3.0}, "guidance"),
        ({"negative_prompt": "noise"}, "negative_prompt"),
    ],
)
async def test_what_this_model_does_not_do_is_named(endpoint: Endpoint, change: dict[str, object], field: str) -> None:
    refused(await endpoint.ask(change), 422, "invalid_value", field)


async def test_pinning_by_alias_version_and_header(endpoint: Endpoint) -> None:
    for name, version in (("champion", "3"), ("candidate", "4"), ("4", "4"), ("sonarc/3", "3"), ("sonarc", "3")):
        answer = await endpoint.ask({"model": name})
        assert answer.headers["x-sonarc-model"] == f"sonarc/{version}"
    pinned = await endpoint.ask(headers={"x-sonarc-pin": "candidate"})
    assert (pinned.headers["x-sonarc-model"], pinned.headers["x-sonarc-alias"]) == ("sonarc/4", "candidate")
    refused(await endpoint.ask({"model": "nothing\r\nx: y"}), 404, "model_not_found", "model")
    refused(await endpoint.ask({"model": "3"}, headers={"x-sonarc-pin": "4"}), 404, "model_not_found")


async def test_models_and_limits(endpoint: Endpoint, served: Served) -> None:
    champion, candidate = (await endpoint.client.get("/v1/models")).json()["data"]
    assert (champion["id"], candidate["id"]) == ("sonarc", "sonarc/candidate")
    assert champion["max_seconds"] == pytest.approx(SAMPLES / RATE)
    assert candidate["package_sha256"] == served[1].package_sha256
    assert (await endpoint.client.get("/healthz")).json() == {"status": "ok"}
    assert (await endpoint.client.get("/readyz")).json()["version"] == "3"


async def test_unknown_routes_and_methods_have_the_one_shape(endpoint: Endpoint) -> None:
    refused(await endpoint.client.get("/nothing"), 404, "not_found")
    refused(await endpoint.client.get(GENERATIONS), 405, "method_not_allowed")
    refused(await endpoint.client.request("BREW", GENERATIONS), 405, "method_not_allowed")


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"{", {"content-type": "application/json"}, 400),
        (b"x" * (MAX_BODY_BYTES + 1), {"content-type": "application/json"}, 413),
        (b"prompt=x", {"content-type": "application/x-www-form-urlencoded"}, 415),
        (b"{}", {}, 415),
    ],
)
async def test_bodies_that_are_wrong(endpoint: Endpoint, content: bytes, headers: dict[str, str], status: int) -> None:
    refused(await endpoint.ask(content=content, headers=headers), status)


async def test_openai_client_gets_audio(endpoint: Endpoint) -> None:
    import openai  # slow to import, and only here

    client = openai.AsyncOpenAI(api_key="any", base_url="http://sonarc/v1", http_client=endpoint.client, max_retries=0)
    speech = await client.audio.speech.create(model="sonarc", voice="alloy", input="a kick drum", response_format="wav")
    audio_SA, rate = heard(speech.content)
    assert rate == RATE and len(audio_SA) == SAMPLES
    default = await client.audio.speech.create(model="champion", voice="alloy", input="a kick drum")
    assert default.response.headers["content-type"] == "audio/mpeg"
    assert {model.id async for model in client.models.list()} == {"sonarc", "sonarc/candidate"}
    with pytest.raises(openai.UnprocessableEntityError, match="blank"):
        await client.audio.speech.create(model="sonarc", voice="alloy", input=" ")
    with pytest.raises(openai.NotFoundError):
        await client.audio.speech.create(model="tts-1", voice="alloy", input="a kick drum")
    with pytest.raises(openai.UnprocessableEntityError, match="speed"):
        await client.audio.speech.create(model="sonarc", voice="alloy", input="a drum", speed=2.0)


async def test_elevenlabs_shape(endpoint: Endpoint) -> None:
    asked = {
        "text": "a kick drum",
        "duration_seconds": 0.5,
        "prompt_influence": 0.3,
        "model_id": "eleven_text_to_sound",
    }
    answer = await endpoint.client.post("/v1/sound-generation", json=asked, params={"output_format": "mp3_44100_128"})
    assert answer.headers["content-type"] == "audio/mpeg" and heard(answer.content)[1] == RATE
    wrong = await endpoint.client.post("/v1/sound-generation", json=asked, params={"output_format": "mp3_22050_32"})
    refused(wrong, 422, field="output_format")
    refused(await endpoint.client.post("/v1/sound-generation", json=asked | {"loop": True}), 422, field="loop")


async def test_metrics_tell_phases_batches_and_rejections(endpoint: Endpoint) -> None:
    await endpoint.ask()
    await endpoint.ask({"seconds": 99})
    await endpoint.settled()
    text = (await endpoint.client.get("/metrics")).text
    for line in (
        'sonarc_requests_total{route="/v1/audio/generations",status="200"}',
        'sonarc_rejections_total{code="invalid_value"}',
        'sonarc_phase_seconds_bucket{le="+Inf",phase="generate"}',
        'sonarc_batch_size_bucket{le="1.0"}',
        "sonarc_queue_depth",
        "sonarc_real_time_factor_count",
        'sonarc_model_info{model="sonarc"',
        'sonarc_jobs{status="queued"}',
    ):
        assert line in text, line
    assert "kick" not in text


async def test_slow_upload_and_vanished_client(endpoint: Endpoint) -> None:
    started = {"type": "http.request", "body": b'{"prompt"', "more_body": True}
    headers = {"content-type": "application/json"}
    begun = await raw(endpoint.app, [started], headers, then=5.0)
    assert begun[0]["status"] == 408
    gone = await raw(endpoint.app, [started], headers)
    assert gone[0]["status"] == 499


async def test_endless_body_is_cut_at_the_limit(endpoint: Endpoint) -> None:
    part = {"type": "http.request", "body": bytes(50_000), "more_body": True}
    form = {"content-type": "multipart/form-data; boundary=b"}
    sent = await raw(endpoint.app, [part] * 100, form)
    assert sent[0]["status"] == 413
    lying = await raw(endpoint.app, [part] * 100, form | {"content-length": "7"})
    assert lying[0]["status"] == 413


async def test_request_id_is_taken_over_when_it_is_one(endpoint: Endpoint) -> None:
    assert (await endpoint.ask(headers={"x-request-id": "mine-1"})).headers["x-request-id"] == "mine-1"
    strange = httpx.Headers([(b"x-request-id", b"a b\x7f")])
    answer = await endpoint.client.get("/healthz", headers=strange)
    assert answer.headers.get_list("x-request-id")[0] not in ("a b\x7f", "")
