"""Keep a private server's replicas off the network.

Each Serve replica opens a gRPC port on all interfaces for calls from other deployments, and unpickles
what arrives there; Ray's token does not guard it. A supervised server is one machine's own, so its
replicas listen on loopback alone. On a cluster a NetworkPolicy has that duty.
"""

from __future__ import annotations

import os
from typing import Any

from ray.serve._private import replica

from serving.state import MARKER

_EVERYWHERE, _LOOPBACK = "[::]:", "127.0.0.1:"


def confine() -> None:
    """Called by every replica as it starts, before Serve opens the port. Does nothing outside a supervised server."""
    opens = replica.add_port_to_grpc_server
    if MARKER not in os.environ or getattr(opens, "confined", False):
        return

    def confined(server: Any, address: str) -> int:
        return int(opens(server, address.replace(_EVERYWHERE, _LOOPBACK)))

    confined.confined = True  # type: ignore[attr-defined]
    replica.add_port_to_grpc_server = confined
