"""Files at HTTPS addresses, fetched without being led astray.

Whoever writes a table of addresses must not be able to make Sonarc speak to the network it stands in. A name is
resolved once, each address it has is judged, and the one that was judged is connected to, so that an answer that
changes in between (DNS rebinding) gains nothing. Redirects go through the same door.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpcore

from sonarc.audio.refusal import Refused
from sonarc.contracts.config import FetchConfig
from sonarc.contracts.dataset import Reason

_NAT64 = ip_network("64:ff9b::/96")
_REDIRECTS = (301, 302, 303, 307, 308)
_CONNECTING = 10.0  # seconds at most for one connection
_AGENT = b"sonarc"


class Blocked(Exception):
    """An address that must not be spoken to."""


def fetch(url: str, config: FetchConfig) -> bytes:
    """The bytes at an HTTPS address.

    Raises:
        Refused: `blocked_address` if it, or one it redirects to, is not public HTTPS; `too_large`; `unreachable` if it
            does not answer, answers with an error, breaks off, or takes longer than `config.seconds`.
    """
    deadline = time.monotonic() + config.seconds
    context = ssl.create_default_context()  # follows SSL_CERT_FILE
    with httpcore.ConnectionPool(ssl_context=context, network_backend=GuardedBackend(config.allow), retries=0) as pool:
        for _ in range(config.redirects + 1):
            _check_url(url)
            try:
                found = _get(pool, url, config, deadline)
            except Blocked as error:
                raise Refused(Reason.BLOCKED, str(error)) from error
            except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError) as error:
                raise Refused(Reason.UNREACHABLE, f"{type(error).__name__}: {error}"[:200]) from error
            if isinstance(found, bytes):
                return found
            url = urljoin(url, found)
    raise Refused(Reason.UNREACHABLE, f"more than {config.redirects} redirects")


class GuardedBackend(httpcore.NetworkBackend):
    """Connects to public addresses, and to allowed ones, alone.

    Args:
        allow: networks allowed though they are not public.
    """

    def __init__(self, allow: Iterable[str] = ()) -> None:
        self._allow = tuple(ip_network(network) for network in allow)
        self._backend = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """A connection to the first address of `host`, if all that it has are allowed.

        Raises:
            Blocked: one of them is not.
        """
        try:
            infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"the name {host[:100]} is not known: {error}") from error
        addresses = [str(info[4][0]) for info in infos]
        for address in addresses:
            if not self._may(address):
                raise Blocked(f"{host[:100]} is at {address}, which is not a public address")
        return self._backend.connect_tcp(addresses[0], port, timeout, local_address, socket_options)

    def connect_unix_socket(self, path: str, *args: Any, **kwargs: Any) -> httpcore.NetworkStream:
        raise Blocked("a socket of this machine")

    def _may(self, text: str) -> bool:
        address = ip_address(text.partition("%")[0])
        if any(address.version == network.version and address in network for network in self._allow):
            return True
        return is_public(address)


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether an address belongs to the public internet, and so do all that are wrapped in it (mapped, 6to4, NAT64)."""
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in _NAT64:
            inner = IPv4Address(int(address) & 0xFFFF_FFFF)
        if inner is not None:
            return is_public(inner)
        if address.teredo is not None:
            return False
    return address.is_global and not address.is_multicast


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise Refused(Reason.BLOCKED, f"the address is malformed: {error}") from error
    if parts.scheme != "https" or not parts.hostname:
        raise Refused(Reason.BLOCKED, f"the address is not HTTPS, but {parts.scheme[:20] or 'nothing'}")
    if parts.username is not None or parts.password is not None:
        raise Refused(Reason.BLOCKED, "the address holds credentials")
    if port == 0 or not url.isascii():
        raise Refused(Reason.BLOCKED, "the address is malformed")


def _get(pool: httpcore.ConnectionPool, url: str, config: FetchConfig, deadline: float) -> bytes | str:
    """The body, or where a redirect leads."""
    patience = max(0.001, deadline - time.monotonic())
    timeouts = {name: min(patience, _CONNECTING) for name in ("connect", "read", "write", "pool")}
    bare = urlsplit(url)._replace(fragment="").geturl()
    headers = [(b"User-Agent", _AGENT), (b"Accept-Encoding", b"identity")]
    with pool.stream("GET", bare, headers=headers, extensions={"timeout": timeouts}) as response:
        found = {name.lower(): value for name, value in response.headers}
        if response.status in _REDIRECTS and b"location" in found:
            return found[b"location"].decode("latin-1")
        if response.status != 200:
            raise Refused(Reason.UNREACHABLE, f"the server answered {response.status}")
        declared = found.get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > config.max_bytes:
            raise Refused(Reason.TOO_LARGE, f"{int(declared)} bytes, more than {config.max_bytes}")
        body = bytearray()
        for chunk in response.iter_stream():
            body += chunk
            if len(body) > config.max_bytes:
                raise Refused(Reason.TOO_LARGE, f"more than {config.max_bytes} bytes")
            if time.monotonic() > deadline:
                raise Refused(Reason.UNREACHABLE, f"it took longer than {config.seconds:g} s")
        return bytes(body)
