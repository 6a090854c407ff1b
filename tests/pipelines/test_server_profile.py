"""One flag turns a command to servers that run already."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.places import Places
from pipelines.server import read_server_profile
from sonarc.contracts.errors import ConfigError

SECRET = "0123456789abcdef"
runner = CliRunner()


@pytest.fixture(autouse=True)
def own_environment() -> Iterator[None]:
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "ray").write_text(SECRET + "\n")
    (tmp_path / "secrets" / "ray").chmod(0o600)
    return written(tmp_path)


def written(folder: Path, **changes: object) -> Path:
    """A profile with some keys changed."""
    tree = {
        "store": "s3://sonarc/store",
        "tracking": "http://127.0.0.1:5000",
        "ray_address": "http://127.0.0.1:8265",
        "runs": "runs",
        "env": {"RAY_AUTH_MODE": "token"},
        "secrets": {"RAY_AUTH_TOKEN": "secrets/ray"},
        "settings": ["serve.port=8499", "arc.steps=5"],  # too few for the preset laptop, and right for ci
    }
    path = folder / "servers.yaml"
    path.write_text(yaml.safe_dump({**tree, **changes}))
    return path


def test_a_command_with_the_flag_finds_the_servers(profile: Path) -> None:
    answer = runner.invoke(app, ["config", "--preset", "ci", "--profile", str(profile), "--set", "arc.steps=7"])
    assert answer.exit_code == 0, answer.output
    tree = json.loads(answer.output)
    assert tree["serve"]["port"] == 8_499 and tree["arc"]["steps"] == 7, "--set comes after the profile"
    assert os.environ["RAY_AUTH_TOKEN"] == SECRET and os.environ["SONARC_SERVERS"] == str(profile)
    places = Places.default(Path(os.environ["SONARC_RUNS"]))
    assert places == Places(
        profile.parent / "runs", "s3://sonarc/store", "http://127.0.0.1:5000", "http://127.0.0.1:8265"
    )


def test_a_setting_that_does_not_exist_is_told(tmp_path: Path) -> None:
    path = written(tmp_path, settings=["arc.stps=3"], secrets={})
    answer = runner.invoke(app, ["config", "--profile", str(path)])
    assert answer.exit_code == 2 and "arc.stps" in answer.stderr


def test_options_of_the_command_come_before_the_profile(profile: Path, tmp_path: Path) -> None:
    store = f"{tmp_path}/elsewhere"
    arguments = ["sync", "--profile", str(profile), "--store", store, "--tracking", f"sqlite:///{tmp_path}/mlflow.db"]
    answer = runner.invoke(app, arguments)
    assert answer.exit_code == 0, answer.output
    assert Path(store).as_uri() in answer.output.replace("\n", "")


def test_a_run_on_a_ray_that_does_not_answer_says_so(tmp_path: Path) -> None:
    changes = {"tracking": f"sqlite:///{tmp_path}/mlflow.db", "store": str(tmp_path / "store"), "secrets": {}}
    path = written(tmp_path, ray_address="http://127.0.0.1:9", **changes)
    answer = runner.invoke(app, ["run", "--quiet", "--preset", "ci", "--profile", str(path)])
    assert answer.exit_code == 9 and "http://127.0.0.1:9 does not answer" in answer.stderr.replace("\n", " ")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"stoer": "x"}, r"stoer"),
        ({"env": {"RAY_AUTH_TOKEN": "x"}}, r"env\.RAY_AUTH_TOKEN holds a secret"),
        ({"env": {"PROXY": "https://me:password@example.com"}}, r"credentials in an address"),
        ({"env": {"lower": "x"}}, r"env\.lower"),
        ({"tracking": None}, r"tracking"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_does_not_belong_into_a_profile_is_refused(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_server_profile(written(tmp_path, **changes))


def test_a_secret_that_others_may_read_is_refused(profile: Path) -> None:
    secret = profile.parent / "secrets" / "ray"
    secret.chmod(0o644)
    with pytest.raises(ConfigError, match=r"Others than its owner may read") as caught:
        read_server_profile(profile).environment(profile.parent)
    assert SECRET not in str(caught.value)
    secret.unlink()
    answer = runner.invoke(app, ["config", "--profile", str(profile)])
    assert answer.exit_code == 2 and "cannot be read" in answer.stderr
