"""The whole application in this process: real routes, a real generator and coordinator, no Ray between them."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import soundfile
from starlette.types import ASGIApp, Message

from serving.api import build_api
from serving.coordinator import Coordinator
from serving.engine import Engine
from serving.keys import KeyRing
from serving.service import Service
from serving.state import Lineup, ServedModel
from sonarc.contracts.config import ServeConfig

GENERATIONS = "/v1/audio/generations"
SHAPE = {"code", "message", "field", "hint", "request_id"}


@dataclass
class Endpoint:
    """A running application and a client of it."""

    app: ASGIApp
    client: httpx.AsyncClient
    engine: Engine
    coordinator: Coordinator
    service: Service

    async def ask(self, body: dict[str, Any] | None = None, **options: Any) -> httpx.Response:
        """A short clip, changed by `body`; `options` are httpx's."""
        fields = {"prompt": "a kick drum", "seconds": 0.2, "seed": 1, "steps": 2} | (body or {})
        asked = {"json": fields} if not {"content", "data", "files"} & options.keys() else {}
        return await self.client.post(GENERATIONS, **(asked | options))

    async def settled(self) -> None:
        """Reports of finished requests have arrived."""
        while self.service._background:
            await asyncio.gather(*self.service._background)


@asynccontextmanager
async def running(
    champion: ServedModel, candidate: ServedModel | None = None, *, keys: Path | None = None, **settings: Any
) -> AsyncIterator[Endpoint]:
    """An application of one or two packages; `settings` are of `ServeConfig`."""
    config = ServeConfig(**({"threads": 1, "max_batch": 4, "max_queued": 16, "timeout_s": 30.0} | settings))
    lineup = Lineup(champion=champion, candidate=candidate)
    engine = Engine(config)
    await engine.load(lineup)
    coordinator = Coordinator(config, engine)
    coordinator.present(lineup)
    service = Service(config, engine, coordinator, KeyRing(keys))
    app = build_api(service)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://sonarc", timeout=60) as client:
        yield Endpoint(app, client, engine, coordinator, service)
    await engine.close()


def refused(answer: httpx.Response, status: int, code: str | None = None, field: str | None = None) -> dict[str, Any]:
    """The error of an answer in the one shape."""
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) == SHAPE
    assert answer.headers["x-request-id"] == error["request_id"]
    assert code in (None, error["code"]) and field in (None, error["field"]), error
    return error


def heard(data: bytes) -> tuple[np.ndarray, int]:
    """Samples `(S, A)` and rate of a file's bytes."""
    audio_SA, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    return audio_SA, rate


async def raw(
    app: ASGIApp, messages: list[Message], headers: dict[str, str], *, path: str = GENERATIONS, then: float = 0.0
) -> list[Message]:
    """What the application sends for a POST whose body is `messages`, of a client that leaves `then` seconds later."""
    sent: list[Message] = []
    left = list(messages)

    async def receive() -> Message:
        if left:
            return left.pop(0)
        await asyncio.sleep(then)
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "server": ("sonarc", 80),
        "client": ("127.0.0.1", 1), "headers": [(k.lower().encode(), v.encode()) for k, v in headers.items()],
    }  # fmt: skip
    await app(scope, receive, send)
    return sent
