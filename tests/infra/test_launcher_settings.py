"""The overlays' settings of the launcher are ones that it takes, and fit the rest of the overlay."""

from __future__ import annotations

import pytest
import yaml

from components.launch.settings import LauncherConfig, parse_launcher
from infra.check.pods import pods
from infra.check.render import INFRA, OVERLAYS, render
from sonarc.contracts.stages import STAGES


def _settings(name: str) -> LauncherConfig:
    path = INFRA / "overlays" / name / "launcher.yaml"
    return parse_launcher(yaml.safe_load(path.read_text("utf-8")), str(path))


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_launcher_takes_its_settings(name: str) -> None:
    settings = _settings(name)
    documents = render(INFRA / "overlays" / name)
    kinds = {(document["kind"], document["metadata"]["name"]) for document in documents}
    if settings.backend == "ray_jobs":
        assert ("RayCluster", "sonarc-ray") in kinds
        return
    assert ("LocalQueue", settings.queue) in kinds
    assert ("ServiceAccount", settings.service_account) in kinds
    assert (settings.user, settings.group) == (10001, 10001)
    used = {container["image"].rpartition("/sonarc/")[0] for pod in pods(documents) for container in pod.containers}
    assert settings.image.rpartition("/sonarc/")[0] in used
    assert all(settings.deadline_of(stage) <= 7 * 24 * 3600 for stage in STAGES)
