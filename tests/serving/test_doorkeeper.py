"""Who is told at the door that there is no place, who is not, and where refusals are counted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
import pytest
from endpoint import running
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send

from serving.api import GENERATIONS
from serving.doorkeeper import PLACES, REFUSED, Doorkeeper, Places
from serving.guard import Guard
from serving.state import ServedModel

pytestmark = pytest.mark.anyio
ROUTE = "/made"


@dataclass
class Slow:
    """An application that answers once it is let."""

    let: asyncio.Event = field(default_factory=asyncio.Event)
    headers: list[dict[str, str]] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.headers.append({name.decode(): value.decode() for name, value in scope["headers"]})
        while (await receive()).get("more_body", False):
            pass
        await self.let.wait()
        await PlainTextResponse("ok")(scope, receive, send)


@asynccontextmanager
async def door(app: Slow, places: int) -> AsyncIterator[httpx.AsyncClient]:
    """A client before proxy and ingress, once the proxy has seen an answer."""
    guarded = Guard(Doorkeeper(Places(app, places, [ROUTE])), 1_000)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(guarded), base_url="http://sonarc") as client:
        app.let.set()
        first = await client.post(ROUTE)
        assert first.status_code == 200 and PLACES not in first.headers
        app.let.clear()
        yield client


async def begun(client: httpx.AsyncClient, count: int) -> list[asyncio.Task[httpx.Response]]:
    tasks = [asyncio.create_task(client.post(ROUTE)) for _ in range(count)]
    await asyncio.sleep(0.05)
    return tasks


async def test_beyond_the_places_it_is_429_at_once_and_afterwards_there_is_room_again() -> None:
    app = Slow()
    async with door(app, places=2) as client:
        inside = await begun(client, 2)
        refused = await client.post(ROUTE)
        assert refused.status_code == 429 and int(refused.headers["retry-after"]) >= 1
        assert refused.json()["error"]["code"] == "too_busy"
        (elsewhere,) = [asyncio.create_task(client.post("/elsewhere"))]
        app.let.set()
        assert (await elsewhere).status_code == 200
        assert [answer.status_code for answer in await asyncio.gather(*inside)] == [200, 200]
        assert (await client.post(ROUTE)).status_code == 200


async def test_of_a_crowd_that_comes_all_at_once_only_so_many_get_in() -> None:
    app = Slow()
    async with door(app, places=3) as client:
        crowd = await begun(client, 20)
        app.let.set()
        statuses = [answer.status_code for answer in await asyncio.gather(*crowd)]
    assert sorted(statuses) == [200] * 3 + [429] * 17
    assert len(app.headers) == 1 + 3


async def test_one_who_is_still_sending_and_one_who_has_gone_keep_nobody_out() -> None:
    app = Slow()
    guarded = Guard(Doorkeeper(Places(app, 1, [ROUTE])), 1_000)
    sent: list[Message] = []

    async def answers(message: Message) -> None:
        sent.append(message)

    async def never() -> Message:
        await asyncio.sleep(60)
        raise AssertionError

    scope = {"type": "http", "method": "POST", "path": ROUTE, "headers": [], "state": {}}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(guarded), base_url="http://sonarc") as client:
        app.let.set()
        await client.post(ROUTE)
        sending = asyncio.create_task(guarded(scope, never, answers))
        await asyncio.sleep(0.05)
        assert (await client.post(ROUTE)).status_code == 200
        sending.cancel()
        app.let.clear()
        (gone,) = await begun(client, 1)
        assert (await client.post(ROUTE)).status_code == 429
        gone.cancel()
        await asyncio.sleep(0.05)
        app.let.set()
        assert (await client.post(ROUTE)).status_code == 200


async def test_the_next_request_brings_word_of_refusals_and_a_clients_word_is_not_taken() -> None:
    app = Slow()
    async with door(app, places=1) as client:
        (inside,) = await begun(client, 1)
        for _ in range(3):
            assert (await client.post(ROUTE)).status_code == 429
        app.let.set()
        await inside
        await client.post(ROUTE, headers={REFUSED: "99"})
        await client.post(ROUTE, headers={REFUSED: "99"})
    assert [seen.get(REFUSED) for seen in app.headers[-2:]] == ["3", None]


async def test_refusals_at_the_door_are_in_the_metrics(served: tuple[ServedModel, ServedModel]) -> None:
    async with running(served[0]) as endpoint:
        answer = await endpoint.client.post(
            GENERATIONS, json={"prompt": "x", "seconds": 0.2, "steps": 1}, headers={REFUSED: "7"}
        )
        assert answer.status_code == 200
        told = (await endpoint.client.get("/metrics")).text
    assert f'sonarc_requests_total{{route="{GENERATIONS}",status="429"}} 7.0' in told
    assert 'sonarc_rejections_total{code="too_busy"} 7.0' in told
    assert f'sonarc_requests_total{{route="{GENERATIONS}",status="200"}} 1.0' in told


async def test_every_route_that_makes_audio_says_how_many_places_there_are(
    served: tuple[ServedModel, ServedModel],
) -> None:
    async with running(served[0], max_batch=4, max_queued=16, replicas=3) as endpoint:
        for path in (GENERATIONS, "/v1/audio/speech", "/v1/sound-generation"):
            assert (await endpoint.client.post(path, json={})).headers[PLACES] == "60"
        assert PLACES not in (await endpoint.client.get("/healthz")).headers
