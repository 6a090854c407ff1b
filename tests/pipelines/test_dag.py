"""The DAG, its compiled copy in git, and the tie between DAG, components and stages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipelines.compiled import COMPILED, compile_text
from pipelines.dag import build
from sonarc.contracts.errors import ConfigError
from sonarc.contracts.stages import STAGES

ROOT = Path(__file__).resolve().parents[2]


def test_the_compiled_pipeline_in_git_is_current() -> None:
    assert COMPILED.read_text(encoding="utf-8") == compile_text(), "run `sonarc pipeline compile`"


def _tasks(until: str) -> dict[str, dict]:
    """Every task of the pipeline up to a stage, those inside the condition too."""
    spec = build(until).pipeline_spec
    document = yaml.safe_load(compile_text()) if until == "smoke" else None
    from google.protobuf.json_format import MessageToDict

    document = document or MessageToDict(spec)
    found = dict(document["root"]["dag"]["tasks"])
    for component in document["components"].values():
        found |= component.get("dag", {}).get("tasks", {})
    return {name: task for name, task in found.items() if not name.startswith("condition")}


def test_every_stage_is_a_task_fed_by_its_upstream_stages() -> None:
    tasks = _tasks("smoke")
    assert set(tasks) == set(STAGES)
    for name, task in tasks.items():
        artifacts = task.get("inputs", {}).get("artifacts", {})
        producers = set()
        for value in artifacts.values():
            if "taskOutputArtifact" in value:
                producers.add(value["taskOutputArtifact"]["producerTask"])
            else:  # handed into the condition from outside: `pipelinechannel--<task>-<output>`
                producers.add(value["componentInputArtifact"].removeprefix("pipelinechannel--").split("-")[0])
        assert producers == set(STAGES[name].inputs), name


def test_no_task_uses_kfps_own_cache() -> None:
    for name, task in _tasks("smoke").items():
        assert not task.get("cachingOptions", {}).get("enableCache"), name


def test_promotion_stands_behind_the_gate() -> None:
    document = yaml.safe_load(compile_text())
    outside = set(document["root"]["dag"]["tasks"])
    assert {"promote", "deploy", "smoke"}.isdisjoint(outside)
    (condition,) = [task for name, task in document["root"]["dag"]["tasks"].items() if name.startswith("condition")]
    assert "pipelinechannel--gate-Output" in condition["triggerPolicy"]["condition"]


@pytest.mark.parametrize("until", list(STAGES))
def test_a_pipeline_cut_at_a_stage_holds_what_it_needs(until: str) -> None:
    tasks = _tasks(until)
    assert until in tasks
    for name in tasks:
        assert set(STAGES[name].inputs) <= set(tasks), name


def test_an_unknown_stage_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="'polish'"):
        build("polish")


@pytest.mark.parametrize("stage", list(STAGES))
def test_each_component_folder_is_complete(stage: str) -> None:
    folder = ROOT / "components" / stage
    metadata = yaml.safe_load((folder / "metadata.yaml").read_text(encoding="utf-8"))
    assert metadata["stage"] == stage
    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert metadata["summary"] in readme
    for name in (*metadata["inputs"], *metadata["outputs"]):
        assert f"`{name}`" in readme


def test_importing_the_dag_loads_neither_torch_nor_ray() -> None:
    code = (
        "import sys, pipelines.dag, pipelines.cli; print([m for m in ('torch', 'ray', 'mlflow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
