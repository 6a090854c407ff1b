"""The outermost layer of the application, and of Serve's proxy before it: what no route needs to think of.

Every answer has one request id, every error one shape, no body is larger than allowed, and no exception leaves.
"""

from __future__ import annotations

import json
import logging
import os
import re
import secrets

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving import errors
from serving.doorkeeper import Doorkeeper
from serving.errors import ApiError

log = logging.getLogger(__name__)

REQUEST_ID = "x-request-id"
_REQUEST_ID_SHAPE = re.compile(r"[A-Za-z0-9._-]{1,64}")
_OURS = ("x-request-id", "x-request-timeout-seconds", "x-request-disconnect-disabled")
MAX_BODY = "SONARC_SERVE_MAX_BODY"
"""Environment variable: bytes beyond which the proxy takes nothing in."""


def in_proxy() -> list[Middleware]:
    """What Serve's proxy puts before everything; named by RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH."""
    return [Middleware(_doors, max_body=int(os.environ[MAX_BODY]))]


def _doors(app: ASGIApp, max_body: int) -> ASGIApp:
    return Guard(Doorkeeper(app), max_body)


def request_id(scope: Scope) -> str:
    """The id of a request that has come through a guard."""
    return str(scope["state"]["request_id"])


class Guard:
    """ASGI middleware.

    Args:
        app: what is guarded.
        max_body: largest body of any route, bytes.
    """

    def __init__(self, app: ASGIApp, max_body: int) -> None:
        self._app, self._max_body = app, max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send, self._max_body)
        if exchange.declared > self._max_body:
            await exchange.refuse(errors.too_large(self._max_body))
            return
        try:
            await self._app(exchange.scope, exchange.receive, exchange.send)
        except ApiError as error:
            if exchange.started:
                raise
            await exchange.refuse(error)
        except Exception as error:
            if exchange.started:
                raise
            log.error("request %s failed: %s", exchange.id, type(error).__name__)
            await exchange.refuse(errors.internal())


class _Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, max_body: int) -> None:
        given = Headers(scope=scope)
        asked = given.get(REQUEST_ID, "")
        self.id = asked if _REQUEST_ID_SHAPE.fullmatch(asked) else secrets.token_hex(12)
        # Serve takes orders from headers of its own: a client's are not passed on.
        names = (*_OURS, *(name for name in given if name.startswith("x-serve")))
        kept = [(name, value) for name, value in scope["headers"] if name.decode("latin-1").lower() not in names]
        self.scope = {
            **scope,
            "headers": [*kept, (REQUEST_ID.encode(), self.id.encode())],
            "state": {**scope.get("state", {}), "request_id": self.id},
        }
        length = given.get("content-length", "")
        self.declared = int(length[:20]) if length.isdigit() else 0
        self._receive, self._send, self._max_body = receive, send, max_body
        self._received = 0
        self._too_large = False
        self._replaced: ApiError | None = None
        self.started = False

    async def receive(self) -> Message:
        """The next part of the body, up to the limit; beyond it the connection counts as closed."""
        if self._too_large:
            return {"type": "http.disconnect"}
        message = await self._receive()
        self._received += len(message.get("body", b""))
        if self._received > self._max_body:
            self._too_large = True
            return {"type": "http.disconnect"}
        return message

    async def send(self, message: Message) -> None:
        """A part of the answer, in our shape if it is an error of somebody else's making."""
        if message["type"] == "http.response.start":
            self._replaced = self._foreign(message)
            if self._replaced is None:
                await self._start(message)
        elif self._replaced is None:
            await self._send(message)
        elif not self.started and not message.get("more_body", False):
            await self.refuse(self._replaced)

    async def refuse(self, error: ApiError) -> None:
        """Answer with an error."""
        body = json.dumps(error.document(self.id)).encode()
        headers = {"content-type": "application/json", "content-length": str(len(body)), **error.headers}
        raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await self._start({"type": "http.response.start", "status": error.status, "headers": raw})
        await self._send({"type": "http.response.body", "body": body})

    async def _start(self, message: Message) -> None:
        headers = MutableHeaders(
            raw=[pair for pair in message.get("headers", []) if pair[0].lower() != b"x-request-id"]
        )
        headers[REQUEST_ID] = self.id
        headers["x-content-type-options"] = "nosniff"
        self.started = True
        await self._send({**message, "headers": headers.raw})

    def _foreign(self, message: Message) -> ApiError | None:
        """Our words for an error that is not in our shape: Serve's own, or the framework's."""
        status = message["status"]
        if self._too_large:
            return errors.too_large(self._max_body)
        kind = Headers(raw=message.get("headers", [])).get("content-type", "")
        if status < 400 or kind.startswith("application/json"):
            return None
        if status == 408:
            return errors.timed_out(0)
        if status in (404, 503):  # Serve knows no route while the application is put up or taken down
            return errors.not_ready()
        if status == 500:  # its replica has died: what fails inside it has our shape
            return errors.lost()
        return ApiError(status, "http_error", "The request could not be answered.", hint="See /openapi.json.")
