"""`sonarc models`: listing, promoting, rolling back, and the trail that is left."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_package import make_package
from typer.testing import CliRunner

from pipelines.cli import app
from sonarc.tracking.registry import Registry


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.setenv("SONARC_STORE", str(tmp_path / "store"))
    return Registry(f"sqlite:///{tmp_path / 'mlflow.db'}", (tmp_path / "store").as_uri())


def said(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["models", *arguments])
    return result.exit_code, result.output


def test_a_day_with_the_registry(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SONARC_ACTOR", "ada")
    monkeypatch.setenv("COLUMNS", "300")
    code, text = said("list")
    assert code != 0 and "Nothing is registered as 'sonarc'" in text
    for seed in (0, 1):
        registry.register("sonarc", make_package(tmp_path / f"p{seed}", seed)[0])
    assert said("promote", "1", "--why", "the first") == (
        0,
        "champion of sonarc: version (none) → 1, by ada: the first\n",
    )
    assert said("promote", "1", "--why", "again")[1] == "champion of sonarc pointed at version 1 already.\n"
    assert said("promote", "2", "--why", "brighter")[0] == 0
    code, text = said("list")
    assert code == 0 and next(line.split()[:2] for line in text.splitlines()[1:]) == ["2", "champion"]
    assert said("rollback", "--why", "it hisses")[1] == "champion of sonarc: version 2 → 1, by ada: it hisses\n"
    code, text = said("log")
    assert [line.split()[1:5] for line in text.splitlines()[1:]] == [
        ["ada", "champion", "–", "1"],
        ["ada", "champion", "1", "2"],
        ["ada", "champion", "2", "1"],
    ]
    code, text = said("promote", "9", "--why", "typo")
    assert code != 0 and "Version 9 of 'sonarc' does not exist" in text
    assert said("promote", "2")[0] == 2, "a move needs a reason"
