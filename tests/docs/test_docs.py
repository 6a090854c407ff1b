"""The documentation says what the code says."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from typer.main import get_command

from sonarc.contracts import errors
from sonarc.contracts.dataset import INDEX_SCHEMA, Reason
from sonarc.contracts.stages import STAGES

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
HOOK = runpy.run_path(str(ROOT / "docs" / "hooks" / "contracts.py"))


def text(page: str) -> str:
    return (ROOT / "docs" / page).read_text(encoding="utf-8")


def test_it_builds_strictly_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    page = (tmp_path / "site" / "contracts.html").read_text(encoding="utf-8")
    assert "dataset_sha256" in page and ":::" not in page
    loaded = re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=\"?(https?://[^\">\s]+)", page)
    assert loaded == []


def test_every_document_with_a_schema_is_described() -> None:
    described = set(HOOK["DIRECTIVE"].findall(text("contracts.md")))
    for file in (ROOT / "sonarc" / "contracts").glob("*.py"):
        module = importlib.import_module(f"sonarc.contracts.{file.stem}") if file.stem != "__init__" else None
        for name, model in inspect.getmembers(module, inspect.isclass):
            if issubclass(model, BaseModel) and "schema_" in model.model_fields and model.__module__ == module.__name__:
                assert (module.__name__, name) in described


def test_a_field_is_shown_with_its_type_and_meaning() -> None:
    table: Any = HOOK["table"]
    shown = table("sonarc.contracts.scores", "Score")
    assert "| `steps` | `int` | Sampler steps; 0 for real clips and reconstructions. |" in shown
    assert "| `schema` |" in table("sonarc.contracts.scores", "ScoreSheet")
    assert "sonarc.scores/1" in table("sonarc.contracts.scores", "ScoreSheet")


def test_stages_columns_reasons_and_exit_codes_are_all_named() -> None:
    assert re.findall(r"^\| (\w+) \|", text("pipeline.md"), re.MULTILINE)[1:] == list(STAGES)
    assert all(f"`{column}`" in text("contracts.md") for column in INDEX_SCHEMA.names)
    assert all(f"`{reason.value}`" in text("troubleshooting.md") for reason in Reason)
    documented = {int(code) for code in re.findall(r"^\| (\d+) \|", text("troubleshooting.md"), re.MULTILINE)}
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.SonarcError)]
    assert {kind.exit_code for kind in kinds} - {1} <= documented


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_that_are_shown_exist(page: Path) -> None:
    shown = page.read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([a-z0-9-]+)", shown, re.MULTILINE)) <= targets
    from pipelines.cli import app

    commands = get_command(app).commands  # type: ignore[attr-defined]
    assert set(re.findall(r"(?:^|`|bin/)sonarc ([a-z][a-z-]*)", shown, re.MULTILINE)) <= set(commands)
    for module in re.findall(r"python -m ([\w.]+)", shown):
        assert importlib.util.find_spec(module), module


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_overrides_that_are_shown_load(page: Path) -> None:
    from sonarc.contracts.presets import load

    shown = re.findall(r"--set ('[^']+'|[^\s`\")]+)", page.read_text(encoding="utf-8"))
    load("laptop", [override.strip("'") for override in shown if "<" not in override])
