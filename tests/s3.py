"""A proxy before the S3 server of `sonarc.bench.s3_server` that misbehaves as told."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from sonarc.bench.s3_server import S3, s3_server

__all__ = ["S3", "Fault", "Proxy", "expired", "fault_proxy", "reset", "s3_server", "slow", "slow_down"]
PATIENCE = 20.0

Fault = Callable[[BaseHTTPRequestHandler], bool]
"""Does its mischief to a request, and returns whether that was the answer."""


def _refuse(handler: BaseHTTPRequestHandler, status: int, code: str, message: str) -> None:
    """An error as S3 words it."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
    handler.send_response(status)
    handler.send_header("Content-Type", "application/xml")
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def slow_down(handler: BaseHTTPRequestHandler) -> bool:
    """503 SlowDown."""
    _refuse(handler, 503, "SlowDown", "Reduce your request rate.")
    return True


def expired(*tokens: str) -> Fault:
    """Requests signed in these sessions are refused: they are over."""

    def fault(handler: BaseHTTPRequestHandler) -> bool:
        if handler.headers.get("X-Amz-Security-Token") not in tokens:
            return False
        _refuse(handler, 400, "ExpiredToken", "It has expired.")
        return True

    return fault


def reset(handler: BaseHTTPRequestHandler) -> bool:
    """The connection is torn down without an answer."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    handler.connection.close()
    handler.close_connection = True
    return True


def slow(handler: BaseHTTPRequestHandler) -> bool:
    """The answer comes late."""
    time.sleep(0.3)
    return False


@dataclass
class Proxy:
    """Where to speak to, which faults come next, and how many came."""

    endpoint: str
    plan: list[Fault | None] = field(default_factory=list)
    every: tuple[int, tuple[Fault, ...]] | None = None
    """Every n-th request has one of these faults in turn."""
    requests: int = 0
    faults: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def next(self) -> Fault | None:
        with self.lock:
            self.requests += 1
            found = self.plan.pop(0) if self.plan else None
            if found is None and self.every is not None and self.requests % self.every[0] == 0:
                found = self.every[1][self.faults % len(self.every[1])]
            self.faults += found is not None
            return found


@contextmanager
def fault_proxy(server: S3) -> Iterator[Proxy]:
    """A proxy before a server; requests go on as they came, signature and all."""
    host, _, port = server.endpoint.removeprefix("http://").partition(":")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fault = proxy.next()
            if fault is not None and fault(self):
                return
            connection = HTTPConnection(host, int(port), timeout=PATIENCE)
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("connection", "expect"):
                    connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            content = answer.read()
            self.send_response_only(answer.status, answer.reason)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                    self.send_header(name, value)
            length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(content))
            self.send_header("Content-Length", length or "0")
            self.end_headers()
            self.wfile.write(content)
            connection.close()

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass

        def log_message(self, *args: Any) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *args: Any) -> None:
            pass  # clients that went away, and connections that were torn down on purpose

    front = Quiet(("127.0.0.1", 0), Handler)
    proxy = Proxy(f"http://127.0.0.1:{front.server_address[1]}")
    threading.Thread(target=front.serve_forever, daemon=True).start()
    try:
        yield proxy
    finally:
        front.shutdown()
        front.server_close()
