"""The DAG, its compiled copy in git, and the tie between DAG, components and stages."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml
from google.protobuf.json_format import MessageToDict

from pipelines.compiled import COMPILED, compile_text
from pipelines.dag import build
from pipelines.kubeflow.facts import components
from pipelines.kubeflow.profile import COMPONENTS
from pipelines.kubeflow.spec import Spec
from sonarc.contracts import store
from sonarc.contracts.config import SonarcConfig
from sonarc.contracts.errors import ConfigError
from sonarc.contracts.presets import load
from sonarc.contracts.result import Artifact, StageRequest, StageResult, write_result
from sonarc.contracts.scores import Score, ScoreSheet, write_scores
from sonarc.contracts.stages import STAGES

ROOT = Path(__file__).resolve().parents[2]
ENDS = {"begin", "finish"}


def test_the_compiled_pipeline_in_git_is_current() -> None:
    assert COMPILED.read_text(encoding="utf-8") == compile_text(), "run `sonarc pipeline compile`"


@cache
def _document(until: str) -> dict:
    return MessageToDict(build(until).pipeline_spec)


def _tasks(until: str) -> dict[str, dict]:
    """Every task of the pipeline up to a stage, those inside groups too."""
    document = _document(until)
    found = dict(document["root"]["dag"]["tasks"])
    for component in document["components"].values():
        found |= component.get("dag", {}).get("tasks", {})
    return {name: task for name, task in found.items() if not name.startswith(("condition", "exit-handler"))}


def test_every_stage_is_a_task_fed_by_its_upstream_stages() -> None:
    tasks = _tasks("smoke")
    assert set(tasks) == {*STAGES, *ENDS} == set(COMPONENTS)
    for name in STAGES:
        artifacts = tasks[name].get("inputs", {}).get("artifacts", {})
        producers = set()
        for value in artifacts.values():
            if "taskOutputArtifact" in value:
                producers.add(value["taskOutputArtifact"]["producerTask"])
            else:  # handed into a group from outside: `pipelinechannel--<task>-<output>`
                producers.add(value["componentInputArtifact"].removeprefix("pipelinechannel--").split("-")[0])
        assert producers == set(STAGES[name].inputs), name


def test_every_stage_reports_to_the_run_that_begin_found() -> None:
    tasks = _tasks("smoke")
    for name in STAGES:
        given = tasks[name]["inputs"]["parameters"]["tracking"]
        producer = given.get("taskOutputParameter", {}).get("producerTask")
        assert producer == "begin" or given["componentInputParameter"] == "pipelinechannel--begin-Output", name


def test_no_task_uses_kfps_own_cache() -> None:
    for name, task in _tasks("smoke").items():
        assert not task.get("cachingOptions", {}).get("enableCache"), name


def test_what_follows_stands_behind_new_data_and_the_gate_and_the_end_behind_nothing() -> None:
    facts = components(Spec.of_yaml(COMPILED.read_text(encoding="utf-8"), "git"))
    assert facts["finish"]["condition"] == "always, at the end"
    for name in ("begin", "sources", "ingest"):
        assert "condition" not in facts[name]
    for name in ("encode", "pretrain", "gate"):
        assert facts[name]["condition"] == "ingest == true"
    for name in ("promote", "deploy", "smoke"):
        assert facts[name]["condition"] == "ingest == true and gate == true"


@pytest.mark.parametrize("until", list(STAGES))
def test_a_pipeline_cut_at_a_stage_holds_what_it_needs(until: str) -> None:
    tasks = _tasks(until)
    assert {until, *ENDS} <= set(tasks)
    for name in set(tasks) - ENDS:
        assert set(STAGES[name].inputs) <= set(tasks), name


def test_an_unknown_stage_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="'polish'"):
        build("polish")


@pytest.mark.parametrize("stage", COMPONENTS)
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


def _all_done(root: str, config: SonarcConfig, silent: float) -> None:
    """Results of every stage before the gate, whose candidate is silent in so much of its clips."""
    folders: dict[str, str] = {}
    score = Score(
        metric="silent_fraction", model="generator", steps=4, value=silent, n=16, better="lower", reference_sha256="r"
    )
    where = store.join(root, "scores.json")
    scores = Artifact(uri=where, sha256=write_scores(where, ScoreSheet(scores=(score,))))
    for stage, spec in STAGES.items():
        if not spec.cached:
            continue
        inputs = {name: folders[name] for name in spec.inputs}
        request = StageRequest(stage=stage, store=root, config=config, inputs=inputs)
        outputs = {"sources": Artifact(uri="file:///x", sha256=stage), "scores": scores}
        folders[stage] = request.folder()
        write_result(folders[stage], StageResult(stage=stage, key=request.key(), status="succeeded", outputs=outputs))


@pytest.mark.slow
def test_the_local_runner_runs_it_from_begin_to_finish_and_stops_at_the_gate(tmp_path: Path) -> None:
    """Stages from the cache need no Ray, so this is kfp's runner and our components alone."""
    config, root = load("ci"), (tmp_path / "store").as_uri()
    _all_done(root, config, silent=0.95)
    document = {
        "until": "smoke",
        "pipeline_root": str(tmp_path / "kfp"),
        "parameters": {
            "config": config.model_dump_json(),
            "store": root,
            "progress": str(tmp_path / "run" / "progress.jsonl"),
        },
    }
    run = tmp_path / "run.json"
    run.write_text(json.dumps(document), encoding="utf-8")
    command = [sys.executable, "-m", "pipelines.execute", "--run", str(run)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    records = {file.stem: json.loads(file.read_text()) for file in (tmp_path / "run" / "stages").glob("*.json")}
    assert set(records) == {"gate", *(name for name, spec in STAGES.items() if spec.cached)}
    assert all(record["cached"] == STAGES[name].cached for name, record in records.items())
    assert records["gate"]["result"]["metrics"]["passed"] == 0
    assert ": SUCCEEDED." in done.stdout + done.stderr  # a refusal is an outcome, and finish says so
