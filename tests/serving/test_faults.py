"""What clients do to an endpoint: hostile bodies, vanishing, crowds. Each ends in a clear answer and nothing lost."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from endpoint import GENERATIONS, Endpoint, raw, refused, running
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.api import build_api
from serving.guard import Guard
from serving.keys import KeyRing, add_key
from serving.service import Service
from serving.state import ServedModel

pytestmark = pytest.mark.anyio

JSON = {"content-type": "application/json"}
SECRET = "correct horse battery staple"


@pytest.fixture(scope="module")
async def endpoint(served: tuple[ServedModel, ServedModel]) -> AsyncIterator[Endpoint]:
    async with running(served[0], batch_wait_s=0.05, max_queued=4, max_batch=2) as endpoint:
        yield endpoint


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"prompt": "x", "seconds": NaN}', "seconds"),
        (b'{"prompt": "x", "seconds": Infinity}', "seconds"),
        (b'{"prompt": "x", "seconds": 1e999}', "seconds"),
        (b'{"prompt": "\\ud800"}', "prompt"),
        (b'{"prompt": "x", "surprise": 1}', "surprise"),
        (b'{"prompt": "x", "seed": true}', "seed"),
        (b'{"prompt": "x", "seed": "7"}', "seed"),
        (b'{"prompt": " \\t "}', "prompt"),
        (b'{"prompt": "a\\u0000b"}', "prompt"),
        (b'{"prompt": "x", "prompt": "y"}', "prompt"),
        (b'{"prompt": ' + b"[" * 10_000 + b"]" * 10_000 + b"}", None),
    ],
)
async def test_hostile_values_are_422_and_named(endpoint: Endpoint, body: bytes, field: str | None) -> None:
    refused(await endpoint.ask(content=body, headers=JSON), 422, "invalid_value", field)


async def test_refusal_does_not_repeat_the_prompt(endpoint: Endpoint) -> None:
    for body in ({"prompt": SECRET * 1_000}, {"prompt": [SECRET, " "]}, {"prompt": SECRET, SECRET: 1}):
        answer = await endpoint.ask(content=json.dumps(body).encode(), headers=JSON)
        assert answer.status_code == 422 or answer.status_code == 413
        assert len(answer.content) < 1_000 and (SECRET not in answer.text or SECRET in body)


async def test_client_gone_mid_generation_frees_its_place_and_poisons_nothing(endpoint: Endpoint) -> None:
    before = (await endpoint.ask()).content
    slow = json.dumps({"prompt": "x", "seconds": 0.2, "steps": 50, "n": 2}).encode()
    leaving = raw(endpoint.app, [{"type": "http.request", "body": slow, "more_body": False}], JSON, then=0.02)
    sent, *others = await asyncio.gather(leaving, *(endpoint.ask() for _ in range(2)))
    assert sent[0]["status"] == 499  # nobody reads it
    assert [answer.content for answer in others] == [before] * 2
    info = await endpoint.engine.info()
    assert info is not None and info.waiting == 0


async def test_one_bad_item_fails_alone(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = endpoint.engine._packages["champion"].generator
    real = generator.generate

    def poisoned(prompts: list[str], *args: object, **kwargs: object) -> object:
        if "poison" in prompts:
            raise RuntimeError(f"cannot make {prompts}")
        return real(prompts, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(generator, "generate", poisoned)
    good, bad = await asyncio.gather(endpoint.ask(), endpoint.ask({"prompt": "poison"}))
    assert good.status_code == 200
    assert "poison" not in str(refused(bad, 500, "internal"))


async def test_crowd_gets_audio_or_429_with_a_time_to_come_back(endpoint: Endpoint) -> None:
    answers = await asyncio.gather(*(endpoint.ask({"seed": seed, "steps": 20}) for seed in range(12)))
    assert {answer.status_code for answer in answers} == {200, 429}
    for answer in answers:
        if answer.status_code == 429:
            refused(answer, 429, "too_busy")
            assert int(answer.headers["retry-after"]) >= 1


async def test_deadline_has_the_one_shape_and_frees_the_worker(served: tuple[ServedModel, ServedModel]) -> None:
    async with running(served[0], timeout_s=0.03) as endpoint:
        refused(await endpoint.ask({"steps": 50, "n": 4}, headers={"accept": "application/json"}), 504, "timeout")


async def test_prompts_are_logged_only_when_asked_to(
    served: tuple[ServedModel, ServedModel], endpoint: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await endpoint.ask({"prompt": SECRET})
    await endpoint.ask({"prompt": SECRET * 100})
    assert SECRET not in caplog.text and "request" in caplog.text
    async with running(served[0], log_prompts=True) as talkative:
        await talkative.ask({"prompt": SECRET})
    assert SECRET in caplog.text


async def test_no_header_can_be_injected(endpoint: Endpoint) -> None:
    evil = "x\r\nset-cookie: a=b"
    answers = [
        await endpoint.ask({"prompt": evil}),
        await endpoint.ask({"model": evil}),
        await endpoint.client.post(
            GENERATIONS,
            data={"prompt": evil, "noise": "0.5", evil: "1"},
            files={"audio": (evil + '"; name="prompt', b"x", evil)},
        ),
        await endpoint.client.get("/" + evil.replace("\r\n", "%0d%0a")),
    ]
    for answer in answers:
        assert "set-cookie" not in answer.headers
        assert all("\r" not in value and "\n" not in value for value in answer.headers.values())
    assert answers[0].status_code == 200


async def test_limits_hold_across_ingress_replicas(served: tuple[ServedModel, ServedModel], tmp_path: Path) -> None:
    secret = add_key(tmp_path / "keys.json", "tight", requests_per_minute=2)
    headers = {"authorization": f"Bearer {secret}"}
    async with running(served[0], keys=tmp_path / "keys.json") as endpoint:
        ring = KeyRing(tmp_path / "keys.json")
        second = build_api(Service(endpoint.service.config, endpoint.engine, endpoint.coordinator, ring))
        transport = httpx.ASGITransport(second)
        async with httpx.AsyncClient(transport=transport, base_url="http://sonarc") as other:
            body = {"prompt": "x", "seconds": 0.2, "steps": 1}
            answers = [
                await client.post(GENERATIONS, json=body, headers=headers) for client in (endpoint.client, other)
            ]
            assert [answer.status_code for answer in answers] == [200, 200]
            for client in (endpoint.client, other):
                refused(await client.post(GENERATIONS, json=body, headers=headers), 429, "rate_limit")


def through_guard(app: ASGIApp) -> httpx.AsyncClient:
    """A client of something that is not ours, behind the guard that Serve's proxy carries."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(Guard(app, 1_000)), base_url="http://sonarc")


@pytest.mark.parametrize(
    ("status", "shown", "code"),
    [
        (404, 503, "not_ready"),
        (408, 504, "timeout"),
        (500, 503, "lost"),
        (503, 503, "not_ready"),
        (418, 418, "http_error"),
    ],
)
async def test_proxys_own_errors_have_the_one_shape(status: int, shown: int, code: str) -> None:
    async with through_guard(PlainTextResponse("Internal Server Error", status)) as client:
        answer = await client.get("/v1/models")
    refused(answer, shown, code)
    if shown in (503, 504):
        assert int(answer.headers["retry-after"]) >= 1


async def test_exception_beneath_the_guard_is_500_and_tells_nothing() -> None:
    async def broken(_: Scope, __: Receive, ___: Send) -> None:
        raise RuntimeError(SECRET)

    async with through_guard(broken) as client:
        assert SECRET not in str(refused(await client.get("/"), 500, "internal"))


async def test_orders_to_serve_in_a_clients_headers_do_not_get_through() -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.extend(name.decode() for name, _ in scope["headers"])
        await PlainTextResponse("ok")(scope, receive, send)

    async with through_guard(app) as client:
        headers = {"x-request-timeout-seconds": "1", "x-request-disconnect-disabled": "true", "accept": "*/*"}
        await client.get("/", headers=headers)
    assert "accept" in seen and not {"x-request-timeout-seconds", "x-request-disconnect-disabled"} & set(seen)
