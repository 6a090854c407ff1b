"""A cluster's double that components find by their kubeconfig, and the settings of a launcher for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import urllib3
import yaml
from kube_api import KubeApi
from kube_server import kube_api

from components.launch import follow, kube, kuberay, pod_log

KUBERAY = {"backend": "kuberay", "image": "sonarc/worker:1.0", "stuck_seconds": 0}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, settings: Callable[..., None]) -> Iterator[KubeApi]:
    """A server, and a pod of a Kubeflow run that speaks to it without long pauses."""
    retries = urllib3.Retry(
        total=3,
        backoff_factor=0.001,
        status_forcelist=kube.RETRIES.status_forcelist,
        allowed_methods=None,
        raise_on_status=False,
    )
    monkeypatch.setattr(kube, "RETRIES", retries)
    monkeypatch.setattr(follow, "PAUSE_SECONDS", (0.01, 0.02))
    monkeypatch.setattr(follow, "WATCH_SECONDS", 1)
    monkeypatch.setattr(pod_log, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(kuberay, "REMOVAL_PAUSE_SECONDS", 0.01)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("KFP_RUN_ID", "0f3a-run")
    monkeypatch.setenv("KFP_POD_NAME", "pretrain-pod")
    monkeypatch.setenv("KFP_POD_UID", "pod-uid-1")
    with kube_api() as api:
        monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(tmp_path)))
        settings()
        yield api


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Writes the document that a cluster mounts, with more keys."""

    def write(**more: object) -> None:
        path = tmp_path / "launcher.yaml"
        path.write_text(yaml.safe_dump(KUBERAY | more), encoding="utf-8")
        monkeypatch.setenv("SONARC_LAUNCHER", str(path))

    return write
