"""Results of every stage before the gate, made by hand around a tiny base and generator."""

from __future__ import annotations

from pathlib import Path

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
from sonarc.contracts.result import Artifact, StageRequest, StageResult, write_result
from sonarc.contracts.scores import Difference, Score, ScoreSheet, write_scores
from sonarc.contracts.stage import execute
from sonarc.tracking import runs
from sonarc.tracking.stages import run_gate, run_promote

GATE = GateConfig(
    rules=(
        GateRule(metric="silent_fraction", bound=0.01),
        GateRule(metric="silent_fraction", versus="champion", bound=0.5),
    )
)


class Pipeline:
    """One run.

    Args:
        silent: the candidate's share of silent clips.
        seed: another one is other models.
        index: hash of what the dataset says; another one is other clips.
        version: of the dataset.
        champion: the champion's share of silent clips, where the evaluation scored it beside the candidate.
    """

    def __init__(
        self,
        folder: Path,
        tracking_uri: str | None,
        silent: float = 0.0,
        seed: int = 0,
        *,
        index: str = "i",
        version: int = 1,
        champion: float | None = None,
    ) -> None:
        models = make_models(folder, seed)
        self.store = (folder / "store").as_uri()
        self.config = models.config.model_copy(update={"gate": GATE})
        self.ref = runs.open_parent(tracking_uri, "tests", "run", {}, {}) if tracking_uri else None
        dataset = self._dataset(index, version)
        latents = self._latents(dataset, models.encoder_sha256)
        generator = Artifact(uri=models.generator[0], sha256=models.generator[1])
        scores_uri = store.join(self.store, f"scores-{seed}.json")
        scores = Artifact(uri=scores_uri, sha256=write_scores(scores_uri, _sheet(silent, champion)))
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

    def _dataset(self, index: str, version: int) -> Artifact:
        uri = store.join(self.store, "datasets", f"{index}-{version}")
        manifest = DatasetManifest(
            version=version, config_sha256="c", sample_rate=44_100, channels=2, samples=32_768, clips=0, seconds=0,
            splits={"train": SplitCount()}, shards=(), index_sha256=index, quarantine_sha256="q",
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


def _sheet(silent: float, champion: float | None) -> ScoreSheet:
    shares = {"generator": silent, **({} if champion is None else {"champion": champion})}
    scores = tuple(
        Score(metric="silent_fraction", model=model, steps=4, value=share, n=8) for model, share in shares.items()
    )
    if champion is None:
        return ScoreSheet(scores=scores)
    value = silent - champion
    between = Difference(
        metric="silent_fraction", a="generator@4", b="champion@4", value=value, low=value, high=value, n=8
    )
    return ScoreSheet(scores=scores, differences=(between,))
