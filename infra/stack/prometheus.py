"""Prometheus: asks the endpoint and Ray's nodes for their figures, and weighs the alert rules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from infra.stack.layout import Layout
from infra.stack.nodes import discovery
from infra.stack.ports import HOST, answers
from infra.stack.programs import program
from infra.stack.service import Service

RULES = Path(__file__).parents[1] / "monitoring" / "alerts.yaml"
SCRAPE, KEPT = "5s", "15d"


def prometheus(layout: Layout) -> Service:
    """The server; its pages and its API are open to whoever is on this machine."""
    folder, address = layout.folder / "prometheus", layout.address("prometheus")
    config = folder / "prometheus.yaml"
    command = (
        program("prometheus", "apt-get install prometheus"),
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--storage.tsdb.retention.time={KEPT}",
        f"--web.listen-address={HOST}:{layout.ports['prometheus']}",
    )
    return Service(
        "prometheus",
        command,
        ready=lambda: answers(f"{address}/-/ready"),
        environment=layout.bare(),
        address=address,
        prepare=lambda: _write(config, settings(layout)),
    )


def settings(layout: Layout) -> dict[str, Any]:
    """What it scrapes."""
    return {
        "global": {"scrape_interval": SCRAPE, "evaluation_interval": "15s"},
        "rule_files": [str(RULES)],
        "scrape_configs": [
            {"job_name": "sonarc", "static_configs": [{"targets": [f"{HOST}:{layout.ports['endpoint']}"]}]},
            {"job_name": "ray", "file_sd_configs": [{"files": [str(discovery(layout))]}]},
        ],
    }


def _write(path: Path, tree: dict[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
