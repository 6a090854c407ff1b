"""The document a cluster mounts: what is in it is understood, or refused with its name and without its secrets."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.launch import LauncherConfig, cleanup, read_launcher
from components.launch.settings import parse_launcher
from sonarc.contracts.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
IMAGE = {"backend": "kuberay", "image": "sonarc/worker:1.0"}


def test_without_a_document_all_is_as_on_one_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SONARC_LAUNCHER", raising=False)
    assert read_launcher() == LauncherConfig() and LauncherConfig().backend == "ray_jobs"
    assert cleanup("run-1") == []


def test_a_document_that_is_named_must_be_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SONARC_LAUNCHER", str(tmp_path / "missing.yaml"))
    with pytest.raises(ConfigError, match=r"missing\.yaml cannot be read"):
        read_launcher()


def test_a_document_is_read_and_an_empty_one_says_nothing(settings: Callable[..., None], tmp_path: Path) -> None:
    settings(queue="audio")
    assert read_launcher().queue == "audio"
    (tmp_path / "launcher.yaml").write_text("# nothing yet\n", encoding="utf-8")
    assert read_launcher() == LauncherConfig()
    (tmp_path / "launcher.yaml").write_text("backend: [", encoding="utf-8")
    with pytest.raises(ConfigError, match="no YAML"):
        read_launcher()
    (tmp_path / "launcher.yaml").write_text("!!python/object/apply:os.getcwd []", encoding="utf-8")
    with pytest.raises(ConfigError, match="no YAML"):
        read_launcher()


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"qeue": "audio"}, "qeue: Extra inputs"),
        ({"backend": "slurm"}, r"backend: .*\(got 'slurm'\)"),
        ({"image": "sonarc/worker"}, "is not pinned"),
        ({"image": "registry:5000/sonarc/worker"}, "is not pinned"),
        ({"image": "sonarc/worker:latest"}, "is not pinned"),
        ({"user": 0}, "user"),
        ({"queue": "Audio!"}, "queue"),
        ({"head": {"memory": "lots"}}, r"head\.memory"),
        ({"workers": [{"min_workers": 3, "max_workers": 2}]}, "from 3 to 2"),
        ({"workers": [{}, {}]}, "a name of its own"),
        ({"workers": [{"name": f"group-{number}"} for number in range(7)]}, "at most 6 groups"),
        ({"workers": [{"name": "submitter"}]}, "cannot be called submitter"),
        ({"queue": "audio", "workers": [{"max_workers": 9}]}, "admits a fixed number"),
        ({"stages": {"pretarin": {}}}, "pretarin is no stage"),
        ({"stages": {"gate": {}}}, "gate is no stage"),
        ({"stages": {"tune": {"deadline_seconds": 0}}}, r"stages\.tune\.deadline_seconds"),
        ({"volumes": [{"name": "a", "mount_path": "/a", "claim": "a", "secret": "b"}]}, "exactly one of"),
        ({"volumes": [{"name": "a", "mount_path": "a", "claim": "a"}]}, "mount_path"),
    ],
)
def test_what_is_wrong_is_named(more: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        parse_launcher(IMAGE | more, "launcher.yaml")


@pytest.mark.parametrize(
    "more",
    [
        {"env": {"AWS_SECRET_ACCESS_KEY": "hunter2"}},
        {"env": {"DATABASE": "postgresql://sonarc:hunter2@db/tune"}},
        {"env": {"MODE": ["hunter2"]}},
        {"password": "hunter2"},
        {"stages": {"tune": {"token": "hunter2"}}},
        {"secret_env": {"AWS_SECRET_ACCESS_KEY": "hunter2"}},
        {"secret_env": {"AWS_SECRET_ACCESS_KEY": {"secret": "HUNTER2", "key": "hunter2"}}},
    ],
)
def test_a_secret_in_plain_text_is_refused_and_not_repeated(more: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_launcher(IMAGE | more, "launcher.yaml")
    assert "hunter2" not in str(caught.value).lower()


@pytest.mark.parametrize("image", ["sonarc/worker:1.0", "registry:5000/w:1", "w@sha256:0a", "w:latest@sha256:0a"])
def test_a_pinned_image_is_taken(image: str) -> None:
    assert parse_launcher(IMAGE | {"image": image}, "launcher.yaml").image == image


def test_rays_version_is_the_one_that_is_installed() -> None:
    pinned = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text("utf-8"), re.MULTILINE)
    assert pinned and LauncherConfig().ray_version == pinned[1]
