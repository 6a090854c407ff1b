"""`sonarc compare` finds runs in a folder and in MLflow; `sonarc votes` tells MLflow."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from report_example import example_summary, write_example_samples
from typer.testing import CliRunner

from pipelines.cli import app
from sonarc.contracts import store
from sonarc.contracts.presets import load
from sonarc.report.summary import write_summary
from sonarc.tracking import runs as tracking


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow' / 'mlflow.db'}")
    return tmp_path


def leave_run(place: Path, name: str) -> str:
    """A finished run as the pipeline leaves it: a folder, and the same in MLflow."""
    uri = f"sqlite:///{place / 'mlflow' / 'mlflow.db'}"
    config = load("ci", [f"arc.seed={name[-1]}"]).model_dump(mode="json")
    ref = tracking.open_parent(uri, "sonarc", name, config, {})
    folder = place / "runs" / name
    write_summary(str(folder / "summary.json"), example_summary().model_copy(update={"run_id": name}))
    store.write_json(str(folder / "config.json"), config)
    store.write_json(str(folder / "run.json"), {"parameters": {"tracking": ref.model_dump_json()}})
    write_example_samples(folder / "samples", ("a tone",))
    run = tracking.parent_run(ref)
    run.log_file(folder / "summary.json")
    for sample in sorted((folder / "samples").glob("*")):
        run.log_file(sample, "samples")
    tracking.close_parent(ref, "FINISHED")
    return ref.parent_run_id


def test_runs_are_compared_from_a_folder_and_from_mlflow_alike(place: Path) -> None:
    ids = [leave_run(place, name) for name in ("run-1", "run-2")]
    cli = CliRunner()
    here = ["--runs", str(place / "runs")]
    local = cli.invoke(app, ["compare", "run-1", "run-2", *here, "-o", str(place / "local.html")])
    assert local.exit_code == 0, local.output
    shutil.rmtree(place / "runs")  # a stakeholder has only MLflow
    remote = cli.invoke(app, ["compare", *ids, *here, "-o", str(place / "remote.html")])
    assert remote.exit_code == 0, remote.output
    page = (place / "local.html").read_text()
    assert _words(page) == _words((place / "remote.html").read_text())
    assert "<code>arc.seed</code>" in page

    data = json.loads(page.split('id="listening-data">')[1].split("</script>")[0])
    (pair,) = data["pairs"]
    vote = {"prompt": pair["prompt"], "seed": pair["seed"], "first": "a", "choice": "b"}
    told = {"schema": "sonarc.votes/1", "id": "00000001", "variant": data["variant"], "votes": [vote]}
    (place / "votes.json").write_text(json.dumps({**told, "a": data["a"], "b": data["b"]}))
    said = cli.invoke(app, ["votes", str(place / "votes.json")])
    assert said.exit_code == 0, said.output
    assert "run-1 against run-2: preferred 0, not 1, no difference 0, 1 session, p = 1.000" in said.output


def _words(page: str) -> str:
    return re.sub(r"base64,[A-Za-z0-9+/=]+", "", page)  # Ogg streams have a random serial number


def test_an_unknown_run_is_refused_with_those_there_are(place: Path) -> None:
    leave_run(place, "run-1")
    said = CliRunner().invoke(app, ["compare", "run-1", "run-9", "--runs", str(place / "runs")])
    assert said.exit_code == 2 and "no finished run 'run-9'" in said.output and "run-1" in said.output
