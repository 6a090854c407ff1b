"""Ray: a head, whose jobs API stages are given to, and a second node. Both are on loopback and want a token."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from infra.stack.layout import Layout
from infra.stack.ports import HOST
from infra.stack.postgres import tuning_url
from infra.stack.service import Service
from pipelines.local_ray import alive_nodes, head_command, node_command
from sonarc.contracts.processes import private_env

NODES = 2


def head(layout: Layout) -> Service:
    """The head; its jobs have in their environment what the pipeline's clients have."""
    folder, address = layout.folder / "ray" / "head", layout.address("ray")
    command = head_command(
        sys.executable,
        layout.ports["ray"],
        layout.cpus,
        folder,
        port=layout.ports["ray-gcs"],
        object_store_bytes=layout.memory,
    )
    return Service(
        "ray-head",
        tuple(command),
        # Its jobs API answers before its own node has joined it, and Ray ends both if that takes too long.
        ready=lambda: alive_nodes(address, layout.secrets.value("ray-token")) >= 1,
        environment=_environment(layout),
        address=address,
        prepare=lambda: _fresh(folder),
    )


def node(layout: Layout) -> Service:
    """The second node: it ends with the head."""
    folder, gcs = layout.folder / "ray" / "node", f"{HOST}:{layout.ports['ray-gcs']}"
    return Service(
        "ray-node",
        tuple(node_command(sys.executable, gcs, layout.cpus, folder, object_store_bytes=layout.memory)),
        ready=lambda: alive_nodes(layout.address("ray"), layout.secrets.value("ray-token")) >= NODES,
        environment=_environment(layout),
        prepare=lambda: _fresh(folder),
    )


def discovery(layout: Layout) -> Path:
    """The file in which the head tells Prometheus where the nodes' figures are."""
    return layout.folder / "ray" / "head" / "prom_metrics_service_discovery.json"


def _environment(layout: Layout) -> dict[str, str]:
    ours = {
        **private_env(),
        "RAY_AUTH_TOKEN": layout.secrets.value("ray-token"),
        "RAY_enable_metrics_collection": "1",  # Prometheus asks for it
        "SONARC_TUNE_STORAGE": tuning_url(layout),
    }
    return layout.client() | ours


def _fresh(folder: Path) -> None:
    """What earlier sessions left is of no use to a new one."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
