"""The stages `gate` and `promote` on a real registry, from the results of the stages before them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_package import make_models

from sonarc.contracts import store
from sonarc.contracts.config import GateConfig, GateRule
from sonarc.contracts.dataset import (
    DatasetManifest,
    LatentsManifest,
    SplitCount,
    write_dataset,
    write_latents,
)
from sonarc.contracts.errors import GateRefused, TrackingError
from sonarc.contracts.package import read_package
from sonarc.contracts.result import Artifact, StageRequest, StageResult, write_result
from sonarc.contracts.scores import Score, ScoreSheet, write_scores
from sonarc.contracts.stage import execute
from sonarc.tracking import runs
from sonarc.tracking.registry import Registry, read_registration
from sonarc.tracking.stages import run_gate, run_promote

GATE = GateConfig(
    rules=(
        GateRule(metric="silent_fraction", bound=0.01),
        GateRule(metric="silent_fraction", versus="champion", bound=0.5),
    )
)


class Pipeline:
    """Results of every stage before the gate, made by hand around a tiny base and generator."""

    def __init__(self, folder: Path, tracking_uri: str | None, silent: float = 0.0, seed: int = 0) -> None:
        models = make_models(folder, seed)
        self.store = (folder / "store").as_uri()
        self.config = models.config.model_copy(update={"gate": GATE})
        self.ref = runs.open_parent(tracking_uri, "tests", "run", {}, {}) if tracking_uri else None
        dataset = self._dataset()
        latents = self._latents(dataset, models.encoder_sha256)
        generator = Artifact(uri=models.generator[0], sha256=models.generator[1])
        scores_uri = store.join(self.store, f"scores-{seed}.json")
        silent_score = Score(metric="silent_fraction", model="generator", steps=4, value=silent, n=8)
        scores = Artifact(uri=scores_uri, sha256=write_scores(scores_uri, ScoreSheet(scores=(silent_score,))))
        self.folders = {
            "ingest": self._leave("ingest", {"dataset": dataset}),
            "encode": self._leave("encode", {"latents": latents}),
            "pretrain": self._leave("pretrain", {"base": Artifact(uri=models.base[0], sha256=models.base[1])}),
            "posttrain": self._leave("posttrain", {"generator": generator}),
            "evaluate": self._leave("evaluate", {"scores": scores}, {"posttrain.generator": generator}),
        }

    def _leave(self, stage: str, outputs: dict[str, Artifact], inputs: dict[str, Artifact] | None = None) -> str:
        folder = store.join(self.store, "made", stage)
        write_result(
            folder, StageResult(stage=stage, key=stage, status="succeeded", inputs=inputs or {}, outputs=outputs)
        )
        return folder

    def _dataset(self) -> Artifact:
        uri = store.join(self.store, "dataset")
        manifest = DatasetManifest(
            version=1, config_sha256="c", sample_rate=44_100, channels=2, samples=32_768, clips=0, seconds=0,
            splits={"train": SplitCount()}, shards=(), index_sha256="i", quarantine_sha256="q",
        )  # fmt: skip
        write_dataset(uri, manifest)
        return Artifact(uri=uri, sha256=manifest.sha256())

    def _latents(self, dataset: Artifact, encoder_sha256: str) -> Artifact:
        uri = store.join(self.store, "latents")
        manifest = LatentsManifest(
            dataset_uri=dataset.uri, dataset_sha256=dataset.sha256, codec="c", encoder_sha256=encoder_sha256,
            channels=64, frames=32, hop=1024, shards=(),
        )  # fmt: skip
        write_latents(uri, manifest)
        return Artifact(uri=uri, sha256=manifest.sha256())

    def run(self, stage: str) -> StageResult:
        work = {"gate": run_gate, "promote": run_promote}[stage]
        needs = ["evaluate"] if stage == "gate" else [name for name in self.folders if name != "promote"]
        inputs = {name: self.folders[name] for name in needs}
        request = StageRequest(stage=stage, store=self.store, config=self.config, inputs=inputs, tracking=self.ref)
        with runs.stage_run(self.ref, stage, "key") as run:
            result = execute(request, work, run)
        self.folders[stage] = request.folder()
        return result


def test_candidate_that_passes_is_packaged_registered_and_promoted(tmp_path: Path, tracking_uri: str) -> None:
    torch.manual_seed(0)
    pipeline = Pipeline(tmp_path, tracking_uri)
    gate = pipeline.run("gate")
    assert (gate.metrics["passed"], gate.counts) == (1.0, {"rules": 2, "failed": 0, "skipped": 1})
    promoted = pipeline.run("promote")
    registry = Registry(tracking_uri, pipeline.store)
    champion = registry.resolve("sonarc", "champion")
    assert champion == read_registration(promoted.outputs["registration"].uri)
    package = read_package(champion.package_uri)
    assert package.sha256() == promoted.outputs["package"].sha256 == champion.package_sha256
    base = read_package(package.lineage.base_uri)
    assert (base.kind, base.sha256()) == ("base", package.lineage.base_sha256)
    assert registry.version("sonarc-base", "1").package_sha256 == base.sha256()
    assert len(registry.audit("sonarc")) == 1


def test_second_promotion_of_the_same_candidate_changes_nothing(tmp_path: Path, tracking_uri: str) -> None:
    pipeline = Pipeline(tmp_path, tracking_uri)
    first = [pipeline.run(stage).outputs for stage in ("gate", "promote")]
    second = [pipeline.run(stage).outputs for stage in ("gate", "promote")]
    assert first == second
    assert len(Registry(tracking_uri, pipeline.store).audit("sonarc")) == 1


def test_refused_candidate_is_not_promoted(tmp_path: Path, tracking_uri: str) -> None:
    pipeline = Pipeline(tmp_path, tracking_uri, silent=0.5)
    assert pipeline.run("gate").metrics["passed"] == 0.0
    with pytest.raises(GateRefused, match="silent_fraction@4 is below"):
        pipeline.run("promote")
    assert Registry(tracking_uri, pipeline.store).resolve("sonarc", "champion") is None


def test_champion_that_the_evaluation_left_out_closes_the_gate(tmp_path: Path, tracking_uri: str) -> None:
    first = Pipeline(tmp_path, tracking_uri)
    first.run("gate")
    first.run("promote")
    second = Pipeline(tmp_path, tracking_uri, seed=1)
    assert second.run("gate").metrics["passed"] == 0.0


def test_a_model_may_arrive_under_an_alias_of_its_own(tmp_path: Path, tracking_uri: str) -> None:
    for seed in (0, 1):
        pipeline = Pipeline(tmp_path, tracking_uri, seed=seed)
        registry = pipeline.config.registry.model_copy(update={"arrival": "candidate"})
        gate = GateConfig(rules=GATE.rules[:1])
        pipeline.config = pipeline.config.model_copy(update={"registry": registry, "gate": gate})
        pipeline.run("gate")
        pipeline.run("promote")
    found = Registry(tracking_uri, pipeline.store)
    champion, candidate = found.resolve("sonarc", "champion"), found.resolve("sonarc", "candidate")
    assert champion is not None and candidate is not None
    assert (champion.version, candidate.version) == ("1", "2")  # the first has nobody to be tried beside


def test_promotion_needs_a_registry(tmp_path: Path) -> None:
    pipeline = Pipeline(tmp_path, None)
    pipeline.run("gate")
    with pytest.raises(TrackingError, match="registry"):
        pipeline.run("promote")
