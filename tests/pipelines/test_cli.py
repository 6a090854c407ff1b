"""The command line as a stranger meets it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from pipelines.cli import app
from sonarc.contracts.config import SonarcConfig
from sonarc.contracts.errors import ConfigError

runner = CliRunner()

COMMANDS = [
    "run",
    "ingest",
    "encode",
    "tune",
    "evaluate",
    "train",
    "generate",
    "export",
    "serve",
    "stop",
    "status",
    "ui",
    "config",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    answer = runner.invoke(app, [command, "--help"])
    assert answer.exit_code == 0
    assert len(answer.output.split()) > 20


def test_config_prints_a_tree_that_can_be_loaded_again() -> None:
    answer = runner.invoke(app, ["config", "--preset", "ci", "--set", "arc.steps=7"])
    tree = SonarcConfig.model_validate(json.loads(answer.output))
    assert tree.arc.steps == 7
    assert tree.preset == "ci"


def test_config_explains_every_field() -> None:
    answer = runner.invoke(app, ["config", "--fields"])
    assert "data.loudness_lufs = -20.0" in answer.output
    assert "LUFS" in answer.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "--preset", "huge"], "'huge'"),
        (["run", "--set", "arc.stps=3"], "'arc.stps'"),
        (["run", "--set", "arc.steps=0"], "arc.steps"),
        (["run", "--set", "arc.steps"], "'arc.steps'"),
        (["run", "--preset", "nowhere.json"], "nowhere.json"),
        (["export"], "What to export as"),
    ],
)
def test_a_bad_setting_is_one_clear_sentence_and_exit_2(arguments: list[str], said: str) -> None:
    answer = runner.invoke(app, arguments)
    assert answer.exit_code == 2
    assert said in answer.stderr
    assert "Traceback" not in answer.stderr + answer.stdout


def test_help_is_quick_because_nothing_heavy_is_imported() -> None:
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom pipelines.cli import app\n"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0\n"
        "print([m for m in ('torch', 'ray', 'kfp', 'mlflow', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_decoder_alone_needs_a_codec_to_start_from() -> None:
    result = CliRunner().invoke(app, ["train", "codec", "--dataset", "nowhere", "--decoder-only"])
    assert result.exit_code == ConfigError.exit_code
    assert "no codec is named" in result.output and "Add --start" in result.output
