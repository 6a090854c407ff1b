"""HTTPS fetches: what is public is fetched, what is not is never connected to."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st
from loopback import serving
from pydantic import ValidationError

from sonarc.audio.refusal import Refused
from sonarc.contracts.config import DataConfig, FetchConfig
from sonarc.contracts.dataset import Reason
from sonarc.data.ingest import at_hand
from sonarc.data.sources.fetch import fetch, is_public
from sonarc.data.sources.listing import SourceFile

LOCAL = FetchConfig(seconds=5, max_bytes=100_000, allow=("127.0.0.1/32",))
Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Server:
    """An HTTPS server on loopback; `answers` by path."""

    port: int
    answers: dict[str, Answer] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def url(self, path: str) -> str:
        return f"https://localhost:{self.port}{path}"


def plain(body: bytes, status: int = 200, **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        stated = {name.replace("_", "-"): value for name, value in headers.items()}
        for name, value in ({"Content-Length": str(len(body))} | stated).items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def endless(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(b"x" * 65_536)


def drip(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(b"x")
        time.sleep(0.05)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.asked.append(self.path)
            with contextlib.suppress(OSError):  # the client went away
                found.answers[self.path](self)

        def log_message(self, *args: Any) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    with serving(Handler, context) as port:
        found = Server(port)
        yield found


@pytest.fixture
def no_connections(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every attempt to connect is noted and fails."""
    attempts: list[Any] = []

    def connect(address: Any, *args: Any, **kwargs: Any) -> Any:
        attempts.append(address)
        raise OSError("no connections here")

    monkeypatch.setattr(socket, "create_connection", connect)
    return attempts


def resolving(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Every name has these addresses."""

    def lookup(host: str, port: int, *args: Any, **kwargs: Any) -> list[Any]:
        return [
            (socket.AF_INET6 if ":" in a else socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in addresses
        ]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)


def test_a_file_is_fetched_and_ingest_reads_it(server: Server, tmp_path: Path) -> None:
    server.answers["/kick.wav"] = plain(b"RIFF and so on")

    assert fetch(server.url("/kick.wav"), LOCAL) == b"RIFF and so on"
    file = SourceFile("web", server.url("/kick.wav"), server.url("/kick.wav"), ("a kick",), "{}", "g")
    assert at_hand(file, DataConfig(fetch=LOCAL), tmp_path / "copy").read_bytes() == b"RIFF and so on"


def test_redirects_are_followed_so_far_and_no_further(server: Server) -> None:
    server.answers["/a"] = plain(b"", 302, Location="/b")
    server.answers["/b"] = plain(b"", 307, Location=server.url("/c"))
    server.answers["/c"] = plain(b"here")
    server.answers["/loop"] = plain(b"", 301, Location="/loop")

    assert fetch(server.url("/a"), LOCAL) == b"here"
    with pytest.raises(Refused, match="more than 2 redirects") as caught:
        fetch(server.url("/loop"), LOCAL.model_copy(update={"redirects": 2}))
    assert caught.value.reason is Reason.UNREACHABLE
    assert server.asked.count("/loop") == 3


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "169.254.169.254", "10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "0.0.0.0", "::1", "fe80::1",
     "fd00::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:7f00:1::", "224.0.0.1",
     "255.255.255.255", "2001:0:53aa:64c::1"],
)  # fmt: skip
def test_addresses_that_are_not_public_are_never_connected_to(
    address: str, monkeypatch: pytest.MonkeyPatch, no_connections: list[Any]
) -> None:
    resolving(monkeypatch, address)
    with pytest.raises(Refused, match="not a public address") as caught:
        fetch("https://innocent.example/a.wav", FetchConfig())
    assert caught.value.reason is Reason.BLOCKED
    assert not no_connections


@pytest.mark.parametrize(
    "host", ["2130706433", "0177.0.0.1", "0x7f.1", "127.1", "localhost", "[::1]", "[::ffff:7f00:1]"]
)
def test_other_spellings_of_loopback_are_seen_through(host: str, no_connections: list[Any]) -> None:
    with pytest.raises(Refused) as caught:
        fetch(f"https://{host}/a.wav", FetchConfig())
    assert caught.value.reason in (Reason.BLOCKED, Reason.UNREACHABLE)  # where a resolver does not take the spelling
    assert not no_connections


def test_a_name_with_one_private_address_among_public_ones_is_refused(
    monkeypatch: pytest.MonkeyPatch, no_connections: list[Any]
) -> None:
    resolving(monkeypatch, "93.184.216.34", "10.0.0.1")
    with pytest.raises(Refused, match=r"10\.0\.0\.1"):
        fetch("https://innocent.example/a.wav", FetchConfig())
    assert not no_connections


def test_the_address_that_was_judged_is_the_one_connected_to(
    monkeypatch: pytest.MonkeyPatch, no_connections: list[Any]
) -> None:
    answers = iter(["93.184.216.34", "127.0.0.1"])  # a name that moves once it has been looked at
    lookups: list[str] = []

    def lookup(host: str, port: int, *args: Any, **kwargs: Any) -> list[Any]:
        lookups.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), port))]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    with pytest.raises(Refused) as caught:
        fetch("https://rebinding.example/a.wav", FetchConfig())
    assert caught.value.reason is Reason.UNREACHABLE
    assert no_connections == [("93.184.216.34", 443)]
    assert lookups == ["rebinding.example"]


@pytest.mark.parametrize(
    "where", ["https://169.254.169.254/latest", "http://localhost/x", "file:///etc/passwd", "//[::1]/"]
)
def test_a_redirect_inside_is_refused(server: Server, where: str) -> None:
    server.answers["/a"] = plain(b"", 302, Location=where)
    with pytest.raises(Refused) as caught:
        fetch(server.url("/a"), LOCAL)
    assert caught.value.reason is Reason.BLOCKED
    assert server.asked == ["/a"]


@pytest.mark.parametrize(
    "url", ["http://example.com/a", "ftp://example.com/a", "https:///a", "https://user:pw@example.com/a",
            "https://example.com:99999/a", "https://[::1", "https://example.com:0/", "https://exämple.com/"],
)  # fmt: skip
def test_addresses_that_are_no_plain_https_are_refused(url: str, no_connections: list[Any]) -> None:
    with pytest.raises(Refused) as caught:
        fetch(url, FetchConfig())
    assert caught.value.reason is Reason.BLOCKED
    assert "pw" not in caught.value.detail
    assert not no_connections


def test_size_and_time_are_capped(server: Server) -> None:
    server.answers |= {
        "/endless": endless,
        "/drip": drip,
        "/declared": plain(b"x", Content_Length="999999999"),
        "/lies": plain(b"short", Content_Length="5000"),
        "/gone": plain(b"", 404),
    }
    reasons = {}
    for path in server.answers:
        start = time.monotonic()
        with pytest.raises(Refused) as caught:
            fetch(server.url(path), LOCAL.model_copy(update={"seconds": 0.5}))
        reasons[path] = caught.value.reason
        assert time.monotonic() - start < 3
    assert reasons == {
        "/endless": Reason.TOO_LARGE,
        "/drip": Reason.UNREACHABLE,
        "/declared": Reason.TOO_LARGE,
        "/lies": Reason.UNREACHABLE,
        "/gone": Reason.UNREACHABLE,
    }


def test_a_server_without_a_trusted_certificate_is_refused(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    server.answers["/a"] = plain(b"x")
    with pytest.raises(Refused, match="CERTIFICATE_VERIFY_FAILED"):
        fetch(server.url("/a"), LOCAL)


def test_nothing_is_allowed_by_default_and_nonsense_is_refused() -> None:
    assert DataConfig().fetch.allow == ()
    with pytest.raises(ValidationError, match="does not appear to be an IPv4 or IPv6 network"):
        FetchConfig(allow=("everything",))


@given(st.ip_addresses(v=4))
def test_what_wraps_a_private_address_is_as_private(inner: Any) -> None:
    for text in (f"::ffff:{inner}", f"64:ff9b::{inner}"):
        assert is_public(ip_address(text)) == is_public(inner)
