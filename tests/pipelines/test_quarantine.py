"""What `sonarc quarantine` shows of a dataset's refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_stages import ingest
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.quarantine import MEANING
from sonarc.contracts.dataset import Reason
from sonarc.contracts.presets import ci
from sonarc.data.sources import Refusal

REFUSED = (
    Refusal("drums", "kick [1].wav", Reason.CORRUPT, "lost sync", "ab"),
    Refusal("drums", "snare.wav", Reason.CORRUPT, "lost sync", "cd"),
    Refusal("web", "https://example.com/a.wav", Reason.BLOCKED, "not public"),
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    return ingest(tmp_path_factory.mktemp("made"), ci(), REFUSED)


def shown(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["quarantine", *arguments], env={"COLUMNS": "160"})
    assert result.exit_code == 0, result.output
    return result.output


def test_every_reason_has_a_meaning() -> None:
    assert set(MEANING) == set(Reason)


def test_counts_and_examples_are_shown(dataset: str) -> None:
    told = shown("--dataset", dataset, "--examples", "1")
    assert "3 refused inputs" in told and "80 clips were taken" in told
    assert "drums/kick [1].wav: lost sync" in told and "snare" not in told
    assert "web/https://example.com/a.wav: not public" in told


def test_refusals_can_be_filtered_and_piped(dataset: str) -> None:
    lines = shown("--dataset", dataset, "--source", "drums", "--json").splitlines()
    assert [json.loads(line)["path"] for line in lines] == ["kick [1].wav", "snare.wav"]
    assert "Nothing like that" in shown("--dataset", dataset, "--reason", "silent")


def test_what_is_not_there_is_a_clear_error(dataset: str, tmp_path: Path) -> None:
    runner = CliRunner()
    unknown = runner.invoke(app, ["quarantine", "--dataset", dataset, "--reason", "boring"])
    assert unknown.exit_code and "There is no reason 'boring'" in unknown.output
    none = runner.invoke(app, ["quarantine", "--runs", str(tmp_path)])
    assert none.exit_code and "Name one with --dataset" in none.output
