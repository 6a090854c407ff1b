"""Before Serve's proxy hands a request on: one that cannot have a place is told so there and then.

A refusal of the queue's own has been through proxy, ingress and generator. Of a crowd that asks again and again there
would be so many that those with a place wait for the core, too. No ray here: ASGI on both sides.

    client → Doorkeeper (in Serve's proxy) → Places (in the ingress) → the routes

`Places` writes on its answers how many places there are; the doorkeeper reads that, and counts who is inside.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import Counter, deque
from collections.abc import Collection

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving import errors

PLACES = "x-sonarc-places"
"""Header of an ingress's answer to its proxy: requests that can be waited for at one time."""
REFUSED = "x-sonarc-refused"
"""Header of a proxy's request to its ingress: requests to that path refused at the door since the one before."""
SHORT = 65_536
"""Bytes of a body that are taken before it is known whether there is a place."""
ARRIVED_S = 0.02
"""A body that takes longer is let in uncounted, seconds: the ingress has its own limit for those."""
_SMOOTHING = 0.2
"""Weight of the newest answer in the mean time to one."""


class Places:
    """ASGI middleware of an ingress.

    Args:
        app: the routes.
        places: requests that can be waited for at one time, over all generators.
        paths: of the routes that make audio while their client waits.
    """

    def __init__(self, app: ASGIApp, places: int, paths: Collection[str]) -> None:
        self._app, self._note, self._paths = app, str(places).encode(), frozenset(paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or scope["path"] not in self._paths:
            await self._app(scope, receive, send)
            return

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), (PLACES.encode(), self._note)]}
            await send(message)

        await self._app(scope, receive, noted)


class Doorkeeper:
    """ASGI middleware of a proxy; beneath a `Guard`, which gives its refusals their shape.

    Args:
        app: what leads to the ingress.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._places: dict[str, int] = {}
        self._inside = 0
        self._refused: Counter[str] = Counter()
        self._mean_s = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request.

        Raises:
            ApiError: 429, as many are inside as there are places.
        """
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"]
        visit = _Visit(self, path, receive, send)
        if scope["method"] == "POST":
            # A short body is there with its headers: of a crowd that comes all at once each is counted before the next.
            await visit.begin()
            if visit.whole and self._inside >= self._places.get(path, math.inf):
                self._refused[path] += 1
                raise errors.too_busy(max(1, math.ceil(self._mean_s)))
        visit.enter()
        try:
            await self._app({**scope, "headers": self._told(scope, path)}, visit.receive, visit.send)
        finally:
            visit.leave()

    def _told(self, scope: Scope, path: str) -> list[tuple[bytes, bytes]]:
        """The request's headers, with what was refused; a client's own word on that is not passed on."""
        kept = [(name, value) for name, value in scope["headers"] if name.lower() != REFUSED.encode()]
        refused = self._refused.pop(path, 0)
        return [*kept, (REFUSED.encode(), str(refused).encode())] if refused else kept

    def enter(self) -> None:
        """Somebody waits for an answer."""
        self._inside += 1

    def leave(self) -> None:
        """Somebody has their answer, or has gone; one who is slow to take it keeps nobody out."""
        self._inside -= 1

    def learn(self, path: str, places: int) -> None:
        """An answer says how many places there are."""
        self._places[path] = places

    def learn_time(self, seconds: float) -> None:
        """How long somebody waited for audio."""
        self._mean_s = seconds if not self._mean_s else (1 - _SMOOTHING) * self._mean_s + _SMOOTHING * seconds


class _Visit:
    """One request's way in and out."""

    def __init__(self, door: Doorkeeper, path: str, receive: Receive, send: Send) -> None:
        self._door, self._path, self._receive, self._send = door, path, receive, send
        self._taken: deque[Message] = deque()
        self._since: float | None = None
        self._left = False
        self.whole = False
        """Whether the request has arrived to its end."""

    async def begin(self) -> None:
        """Take what has arrived of a short body, for the application to have later; await no slow sender."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ARRIVED_S):
                while not self.whole and sum(len(part.get("body", b"")) for part in self._taken) < SHORT:
                    self._taken.append(await self._next())
                    if self._taken[-1]["type"] != "http.request":
                        return

    async def receive(self) -> Message:
        """The next part of the body."""
        if self._taken:
            return self._taken.popleft()
        message = await self._next()
        self.enter()
        return message

    async def _next(self) -> Message:
        message = await self._receive()
        self.whole = self.whole or (message["type"] == "http.request" and not message.get("more_body", False))
        return message

    def enter(self) -> None:
        """Count it, once it has arrived whole: one who is still sending keeps nobody out."""
        if self.whole and self._since is None and not self._left:
            self._since = time.monotonic()
            self._door.enter()

    async def send(self, message: Message) -> None:
        """A part of the answer, without what is the doorkeeper's alone."""
        if message["type"] == "http.response.start":
            headers = MutableHeaders(raw=list(message.get("headers", [])))
            if (places := headers.get(PLACES)) is not None:
                del headers[PLACES]
                self._door.learn(self._path, int(places))
                if message["status"] == 200 and self._since is not None:
                    self._door.learn_time(time.monotonic() - self._since)
            self.leave()
            message = {**message, "headers": headers.raw}
        await self._send(message)

    def leave(self) -> None:
        """Once."""
        if not self._left and self._since is not None:
            self._door.leave()
        self._left = True
