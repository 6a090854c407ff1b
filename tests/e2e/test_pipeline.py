"""The whole pipeline at toy sizes: real kfp runner, real Ray, real MLflow, real Serve, real audio."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import numpy as np
import pytest
import soundfile

from pipelines.local import RunOutcome, run_pipeline
from pipelines.places import Places
from serving import control
from sonarc.contracts.config import SonarcConfig
from sonarc.contracts.presets import load
from sonarc.contracts.stages import STAGES

pytestmark = pytest.mark.timeout(1_800)  # the whole pipeline runs in the first fixture; busy machines are slow


@dataclass(frozen=True)
class Ended:
    """A pipeline that ran, and what it ran with."""

    config: SonarcConfig
    places: Places
    first: RunOutcome


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ended]:
    root = tmp_path_factory.mktemp("e2e")
    places = Places(
        runs=root / "runs", store=(root / "store").as_uri(), tracking=f"sqlite:///{root / 'mlflow' / 'mlflow.db'}"
    )
    config = load("ci")
    try:
        yield Ended(config, places, run_pipeline(config, places, quiet=True))
    finally:
        control.stop(places.runs)


def test_every_stage_succeeds_and_the_run_says_so(ended: Ended) -> None:
    summary = ended.first.summary
    assert ended.first.error is None
    assert summary.status == "succeeded"
    assert [line.name for line in summary.stages] == list(STAGES)
    assert {line.status for line in summary.stages} == {"succeeded"}
    assert not any(line.cached for line in summary.stages)


def test_damaged_files_are_counted_in_quarantine(ended: Ended) -> None:
    dataset = ended.first.summary.dataset
    assert dataset is not None
    assert sum(dataset.quarantined.values()) >= ended.config.data.demo.damaged
    assert len(dataset.quarantined) >= 3
    assert dataset.clips >= 32


def test_scores_cover_base_and_generator_with_their_provenance(ended: Ended) -> None:
    sheet = ended.first.summary.scores
    for metric in ("fd_yamnet", "fd_aisfx", "adherence", "recall", "coverage", "realtime"):
        for model, steps in (("base", 4), ("generator", 4), ("generator", 1)):
            score = sheet.get(metric, model, steps)
            assert score is not None, (metric, model, steps)
            assert score.n > 0
            assert np.isfinite(score.value)
    fd = sheet.get("fd_yamnet", "generator", 4)
    assert fd is not None
    assert fd.embedder_sha256
    assert fd.reference_sha256
    assert any(d.a == "generator@4" and d.b == "base@4" for d in sheet.differences)


def test_the_run_leaves_a_report_and_samples(ended: Ended) -> None:
    folder = ended.places.runs / "latest"
    assert folder.resolve() == ended.first.folder.resolve()
    report = (folder / "report.html").read_text(encoding="utf-8")
    assert "<audio" in report
    assert not re.search(r"""(src|href)=["']?https?://(?!127\.0\.0\.1)""", report)
    wavs = sorted((folder / "samples").glob("*.wav"))
    assert len(wavs) >= 2 * ended.config.evaluate.sample_prompts
    audio, rate = soundfile.read(wavs[0], always_2d=True)
    assert (rate, audio.shape[1]) == (44_100, 2)
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert summary["schema"] == "sonarc.summary/1"


def test_the_endpoint_answers_with_audio_of_the_asked_length(ended: Ended) -> None:
    state = control.status(ended.places.runs)
    assert state is not None
    answer = httpx.post(
        f"{state.address}/v1/audio/generations",
        json={"prompt": "a piano plays a slow tune", "seconds": 0.75, "seed": 7},
        timeout=60,
    )
    assert answer.status_code == 200
    (ended.places.runs / "answer.wav").write_bytes(answer.content)
    audio, rate = soundfile.read(ended.places.runs / "answer.wav", always_2d=True)
    assert rate == 44_100
    assert audio.shape == (round(0.75 * rate), 2)
    assert np.abs(audio).max() > 1e-4


def test_mlflow_holds_one_parent_with_a_nested_run_a_stage(ended: Ended) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(ended.places.tracking)
    (experiment,) = client.search_experiments(filter_string="name = 'sonarc'")
    runs = client.search_runs([experiment.experiment_id], max_results=200)
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    first = min(parents, key=lambda run: run.info.start_time)
    nested = {run.info.run_name for run in runs if run.data.tags.get("mlflow.parentRunId") == first.info.run_id}
    assert set(STAGES) <= nested


@pytest.mark.slow
def test_a_second_run_takes_everything_from_the_cache_and_keeps_the_server(ended: Ended) -> None:
    before = control.status(ended.places.runs)
    second = run_pipeline(ended.config, ended.places, quiet=True)
    after = control.status(ended.places.runs)
    assert second.error is None
    cached = {line.name for line in second.summary.stages if line.cached}
    assert cached == {name for name, spec in STAGES.items() if spec.cached}
    assert before is not None
    assert after is not None
    assert (after.pid, after.package_sha256) == (before.pid, before.package_sha256)


@pytest.mark.slow
def test_a_worse_candidate_is_scored_beside_the_champion_and_refused(ended: Ended) -> None:
    before = control.status(ended.places.runs)
    rules = (
        '[{"metric":"fd_yamnet","versus":"champion","side":"below","bound":1000},'
        '{"metric":"fd_yamnet","versus":"absolute","side":"below","bound":-1}]'
    )
    refused = run_pipeline(load("ci", ["arc.steps=4", f"gate.rules={rules}"]), ended.places, quiet=True)
    after = control.status(ended.places.runs)
    assert refused.error is not None
    assert refused.error.code == "gate"
    assert refused.summary.status == "refused"
    assert refused.summary.gate is not None
    assert [rule.passed for rule in refused.summary.gate.rules] == [True, False]
    champion = refused.summary.scores.get("fd_yamnet", "champion", 4)
    assert champion is not None
    (first,) = [
        s
        for s in ended.first.summary.scores.scores
        if s.metric == "fd_yamnet" and s.model == "generator" and s.steps == 4
    ]
    assert champion.value == pytest.approx(first.value, rel=0.05)  # the same weights, in half precision or not
    promoted = refused.summary.stage("promote")
    assert promoted is not None
    assert promoted.status == "skipped"
    assert before is not None
    assert after is not None
    assert after.package_sha256 == before.package_sha256


@pytest.mark.slow
def test_a_failing_stage_is_one_clear_error_and_leaves_the_server_alone(ended: Ended) -> None:
    missing = '[{"name":"mine","uri":"/nowhere/at/all"}]'
    failed = run_pipeline(load("ci", [f"data.sources={missing}"]), ended.places, quiet=True)
    assert failed.error is not None
    assert failed.error.code == "source"
    assert "/nowhere/at/all" in failed.error.message
    assert failed.summary.status == "failed"
    assert control.status(ended.places.runs) is not None
