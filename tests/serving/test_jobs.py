"""Jobs: started once, followed, fetched, cancelled; kept for a while and never by too many."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from endpoint import Endpoint, heard, refused, running

from serving.errors import lost
from serving.state import ServedModel
from serving.work import Progress, Work

pytestmark = pytest.mark.anyio

JOBS = "/v1/audio/generations/jobs"


@pytest.fixture(scope="module")
async def endpoint(served: tuple[ServedModel, ServedModel]) -> AsyncIterator[Endpoint]:
    async with running(served[0], max_jobs=8, job_ttl_s=1.0, job_timeout_s=20, max_queued=4) as endpoint:
        yield endpoint


async def start(endpoint: Endpoint, name: str = "", **fields: Any) -> httpx.Response:
    body = {"prompt": "bells", "seconds": 0.2, "steps": 2, "seed": 1} | fields
    return await endpoint.client.post(JOBS, json=body, headers={"idempotency-key": name} if name else {})


async def ended(endpoint: Endpoint, job_id: str) -> dict[str, Any]:
    async with asyncio.timeout(30):
        while True:
            job: dict[str, Any] = (await endpoint.client.get(f"{JOBS}/{job_id}")).json()
            if job["status"] not in ("queued", "running"):
                return job
            await asyncio.sleep(0.02)


async def test_job_is_followed_and_its_audio_is_what_a_request_gets(endpoint: Endpoint) -> None:
    started = await start(endpoint, n=2, response_format="flac", steps=40)
    assert started.status_code == 202
    job = started.json()
    assert started.headers["location"] == f"{JOBS}/{job['id']}"
    events = []
    async with endpoint.client.stream("GET", f"{JOBS}/{job['id']}/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        async for line in stream.aiter_lines():
            if line.startswith("data: "):
                events.append(json.loads(line[6:]))
    assert events[-1]["status"] == "succeeded" and [clip["seed"] for clip in events[-1]["data"]] == [1, 2]
    done = [event["progress"]["done"] for event in events]
    assert done == sorted(done) and done[-1] == 40 and len(set(done)) > 1
    audio = await endpoint.client.get(events[-1]["data"][1]["url"])
    assert audio.headers["content-type"] == "audio/flac"
    direct = await endpoint.ask({"prompt": "bells", "seed": 2, "steps": 40, "response_format": "flac"})
    assert heard(audio.content)[0].shape == heard(direct.content)[0].shape
    refused(await endpoint.client.get(f"{JOBS}/{job['id']}/audio/2"), 404, "job_not_found")


async def test_same_idempotency_key_is_the_same_job_and_another_body_a_conflict(endpoint: Endpoint) -> None:
    one, two = await start(endpoint, "key-1"), await start(endpoint, "key-1")
    assert one.json()["id"] == two.json()["id"]
    refused(await start(endpoint, "key-1", seed=2), 409, "idempotency_conflict")
    assert (await start(endpoint, "key-2")).json()["id"] != one.json()["id"]
    refused(await start(endpoint, "x" * 256), 422, field="Idempotency-Key")
    await ended(endpoint, one.json()["id"])


async def test_cancelled_job_stops_and_frees_its_place(endpoint: Endpoint) -> None:
    long = (await start(endpoint, steps=50, n=4)).json()["id"]
    await asyncio.sleep(0.1)
    assert (await endpoint.client.delete(f"{JOBS}/{long}")).status_code == 204
    refused(await endpoint.client.get(f"{JOBS}/{long}"), 404)
    refused(await endpoint.client.delete(f"{JOBS}/{long}"), 404)
    assert (await endpoint.ask()).status_code == 200
    info = await endpoint.engine.info()
    assert info is not None and info.waiting == 0


async def test_a_full_queue_is_waited_for(endpoint: Endpoint) -> None:
    jobs = [(await start(endpoint, steps=10, n=3, seed=10 * n)).json()["id"] for n in range(4)]
    assert {(await ended(endpoint, job))["status"] for job in jobs} == {"succeeded"}


async def test_job_is_begun_again_when_its_generator_dies(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    real, lives = endpoint.engine.watch, iter([False, True])

    async def watch(work: Work) -> AsyncIterator[Any]:
        if not next(lives):
            yield Progress(1, 2)
            raise lost()
        async for event in real(work):
            yield event

    monkeypatch.setattr(endpoint.engine, "watch", watch)
    job = (await start(endpoint)).json()["id"]
    assert (await ended(endpoint, job))["status"] == "succeeded"


async def test_finished_jobs_go_after_a_while_and_too_many_are_refused(endpoint: Endpoint) -> None:
    await asyncio.sleep(1.2)
    started = [await start(endpoint, steps=20) for _ in range(9)]
    assert [answer.status_code for answer in started] == [202] * 8 + [429]
    assert int(started[-1].headers["retry-after"]) >= 1
    first = started[0].json()["id"]
    for answer in started[:8]:
        assert (await endpoint.client.delete(f"{JOBS}/{answer.json()['id']}")).status_code == 204
    assert (await start(endpoint)).status_code == 202
    refused(await endpoint.client.get(f"{JOBS}/{first}"), 404)


async def test_wrong_bodies_are_refused_as_anywhere(endpoint: Endpoint) -> None:
    refused(await start(endpoint, seconds=99), 422, field="seconds")
    refused(await start(endpoint, extra=1), 422, field="extra")
