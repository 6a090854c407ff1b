"""Ports of the services: the usual ones where they are free, else any; chosen once, so that addresses stay."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from sonarc.contracts.errors import ConfigError
from sonarc.contracts.processes import free_port

HOST = "127.0.0.1"
USUAL = {
    "postgres": 5432,
    "objects": 9000,
    "mlflow": 5000,
    "ray": 8265,
    "ray-gcs": 6379,
    "prometheus": 9090,
    "endpoint": 8420,
}
FILE = "ports.json"
RAYS = range(10_001, 20_000)
"""Ray gives these to its workers and to clients of its own protocol, whoever else may want them."""
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def ports_of(folder: Path, given: Mapping[str, int] | None = None, *, running: bool = False) -> dict[str, int]:
    """The ports of a data folder's services, written down there.

    Args:
        given: name → port, instead of what was chosen before.
        running: whether services run, so that their ports cannot change.

    Raises:
        ConfigError: no such name; a port that Ray gives to others; or services run on other ports than the given ones.
    """
    given = dict(given or {})
    if unknown := set(given) - set(USUAL):
        raise ConfigError(f"There is no port {sorted(unknown)[0]!r}.", f"There are {', '.join(USUAL)}.")
    if rays := [name for name, port in given.items() if port in RAYS]:
        raise ConfigError(
            f"The port {given[rays[0]]} of {rays[0]} may be one of Ray's workers'.",
            f"Choose one below {RAYS.start} or above {RAYS[-1]}.",
        )
    path = folder / FILE
    chosen: dict[str, int] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    if running and (moved := [name for name, port in given.items() if chosen.get(name) != port]):
        raise ConfigError(f"The port of {moved[0]} cannot change while services run.", "End them first: `down`.")
    taken = set(chosen.values()) | set(given.values())
    for name, usual in USUAL.items():
        if name not in chosen:
            chosen[name] = usual if usual not in taken and _free(usual) else free_port()
    chosen |= given
    if len(set(chosen.values())) < len(chosen):
        raise ConfigError(f"Two services would have one port: {chosen}.", "Give each its own.")
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(chosen, indent=2) + "\n", encoding="utf-8")
    fresh.replace(path)
    return chosen


def listens(port: int) -> bool:
    """Whether something takes connections at a port."""
    with socket.socket() as attempt:
        attempt.settimeout(1.0)
        return attempt.connect_ex((HOST, port)) == 0


def answers(url: str) -> bool:
    """Whether a page can be had. Asked through no proxy, and without httpx, which reads all certificates each time."""
    try:
        with _DIRECT.open(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
