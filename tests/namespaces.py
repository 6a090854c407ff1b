"""Hosts made of network namespaces: addresses of their own, a cable each that can be pulled. Linux, as root."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ray_cluster import Cluster

NETWORK = "10.77.0"
BRIDGE = "sonarc-br"
SETTINGS = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1",
    "GLOO_SOCKET_IFNAME": "eth0",  # the machine's name means its own loopback, which no other host reaches
    "RAY_health_check_initial_delay_ms": "2000",
    "RAY_health_check_period_ms": "2000",
    "RAY_health_check_timeout_ms": "4000",
    "RAY_health_check_failure_threshold": "4",
}
"""A host that has not answered for about 20 s counts as lost."""


def missing() -> str:
    """Why there can be no such hosts here; empty: there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "there is no `ip` (Debian: iproute2)"
    tried = subprocess.run(["ip", "netns", "add", "sonarc-try"], capture_output=True, text=True, check=False)
    subprocess.run(["ip", "netns", "del", "sonarc-try"], capture_output=True, check=False)
    return f"no network namespace can be made: {tried.stderr.strip()}" if tried.returncode else ""


def _ip(*arguments: str, check: bool = True) -> None:
    subprocess.run(["ip", *arguments], check=check, capture_output=True, text=True)


def _name(number: int) -> str:
    return f"sonarc-h{number}"


@dataclass
class Hosts(Cluster):
    """A cluster whose head and nodes are on hosts of their own."""

    def host(self, number: int) -> tuple[list[str], str]:
        return ["ip", "netns", "exec", _name(number)], f"{NETWORK}.{10 + number}"

    def cut_off(self, number: int) -> None:
        """Pull a host's cable: nothing reaches it, and nobody is told."""
        _ip("link", "set", f"{_name(number)}-v", "down")


@contextlib.contextmanager
def hosts(folder: Path, count: int, cpus: int = 1) -> Iterator[Hosts]:
    """So many hosts on one switch, the head on the first with so many CPUs; all are gone after the block."""
    made = Hosts(folder, cpus=cpus)
    made.env |= SETTINGS
    _remove(count)  # what a killed test left
    try:
        _ip("link", "add", BRIDGE, "type", "bridge")
        _ip("link", "set", BRIDGE, "up")
        _ip("address", "add", f"{NETWORK}.1/24", "dev", BRIDGE)
        for number in range(count):
            name, cable = _name(number), f"{_name(number)}-v"
            _ip("netns", "add", name)
            _ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", name)
            _ip("link", "set", cable, "master", BRIDGE, "up")
            _ip("-n", name, "address", "add", f"{made.host(number)[1]}/24", "dev", "eth0")
            _ip("-n", name, "link", "set", "eth0", "up")
            _ip("-n", name, "link", "set", "lo", "up")
            _ip("-n", name, "route", "add", "default", "via", f"{NETWORK}.1")  # by which Ray finds a host's address
        made.start()
        yield made
    finally:
        made.stop()
        _remove(count)


def _remove(count: int) -> None:
    for number in range(count):
        _ip("link", "del", f"{_name(number)}-v", check=False)  # at once; the namespace's end may take a while
        _ip("netns", "del", _name(number), check=False)
    _ip("link", "del", BRIDGE, check=False)
