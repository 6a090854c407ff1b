"""What an overlay says to the launcher and to `sonarc pipeline` is what they take, and fits the rest of it."""

from __future__ import annotations

from functools import cache

import pytest
import yaml

from components.launch.settings import LauncherConfig, parse_launcher
from infra.check.pods import pods
from infra.check.references import documented_secrets
from infra.check.render import INFRA, NAMESPACE, OVERLAYS, Document, render
from pipelines.kubeflow.profile import read_profile
from sonarc.contracts.stages import STAGES


@cache
def overlay(name: str) -> tuple[Document, ...]:
    return tuple(render(INFRA / "overlays" / name))


def _names(name: str) -> set[tuple[str, str]]:
    return {(document["kind"], document["metadata"]["name"]) for document in overlay(name)}


def _images(name: str) -> set[str]:
    return {container["image"] for pod in pods(overlay(name)) for container in pod.containers}


def _launcher(name: str) -> LauncherConfig:
    path = INFRA / "overlays" / name / "launcher.yaml"
    return parse_launcher(yaml.safe_load(path.read_text("utf-8")), str(path))


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_launcher_takes_its_settings(name: str) -> None:
    settings = _launcher(name)
    if settings.backend == "ray_jobs":
        assert ("RayCluster", "sonarc-ray") in _names(name)
        return
    assert ("LocalQueue", settings.queue) in _names(name)
    assert ("ServiceAccount", settings.service_account) in _names(name)
    assert (settings.user, settings.group) == (10001, 10001)
    assert settings.image.replace("/worker:", "/serve:") in _images(name)
    assert all(settings.deadline_of(stage) <= 7 * 24 * 3600 for stage in STAGES)


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_pipeline_takes_the_profile(name: str) -> None:
    profile = read_profile(INFRA / "overlays" / name / "profile.yaml")
    settings = next(doc["data"] for doc in overlay(name) if doc["metadata"]["name"] == "sonarc-environment")
    assert (profile.store, profile.tracking) == (settings["SONARC_STORE"], settings["MLFLOW_TRACKING_URI"])
    assert profile.kubeflow.namespace == NAMESPACE and profile.until == "promote"
    assert ("ServiceAccount", profile.kubeflow.service_account) in _names(name)
    assert {profile.images["pipeline"], profile.images["serve"]} <= _images(name)
    for stage in ("ingest", "promote"):
        needs = profile.component(stage)
        assert {("ConfigMap", config_map) for config_map in needs.config_maps} <= _names(name)
        assert all(settings.get(key, value) == value for key, value in needs.env.items())
        assert needs.env.get("AWS_ENDPOINT_URL") == settings.get("AWS_ENDPOINT_URL")
    for secret in profile.secrets:
        assert set(secret.keys) <= documented_secrets()[secret.secret]
    launcher = _launcher(name)
    for stage in (stage for stage in STAGES if STAGES[stage].ray and launcher.backend == "kuberay"):
        least = launcher.deadline_of(stage) + launcher.start_seconds
        assert profile.component(stage).timeout_s > least, f"{stage} would be given up while its job may go on"
    if launcher.backend == "ray_jobs":
        assert profile.ray_address == "http://sonarc-ray-head-svc:8265"
