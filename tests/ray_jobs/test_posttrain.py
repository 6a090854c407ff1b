"""ARC through Ray Train: two networks in a checkpoint, workers, resume, lineage."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from one_worker import train_here
from tiny_latents import write_encode_stage

from ray_jobs import posttrain, pretrain
from sonarc.checkpoint import load_checkpoint, load_dit
from sonarc.contracts import store
from sonarc.contracts.config import SonarcConfig
from sonarc.contracts.errors import DataError
from sonarc.contracts.presets import load
from sonarc.contracts.progress import read_progress
from sonarc.contracts.result import Artifact, StageRequest, StageResult, write_result
from sonarc.contracts.stage import execute
from sonarc.contracts.tuning import LossWeights, Trial, TunedWeights
from sonarc.tracking.runs import NullRun

OVERRIDES = (
    "pretrain.steps=2",
    "pretrain.batch=4",
    "arc.steps=4",
    "arc.batch=4",
    "arc.checkpoint_every=2",
    "arc.generator_delay=1",
    "compute.threads=1",
)


def tiny(*overrides: str) -> SonarcConfig:
    return load("ci", [*OVERRIDES, *overrides])


def tune_stage(root: Path, contrastive: float = 0.5, penalty: float = 0.25) -> str:
    """A finished tune stage."""
    weights = LossWeights(contrastive_weight=contrastive, penalty_weight=penalty)
    trial = Trial(number=0, weights=weights, frechet=1.0, adherence=0.1)
    folder = store.join(root.as_uri(), "stages", "tune", "key")
    document = TunedWeights(weights=weights, chosen=0, trials=(trial,)).model_dump(mode="json")
    digest = store.write_json(store.join(folder, "weights.json"), document)
    output = Artifact(uri=store.join(folder, "weights.json"), sha256=digest)
    write_result(folder, StageResult(stage="tune", key="key", status="succeeded", outputs={"weights": output}))
    return folder


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Stage folders of encode, pretrain and tune."""
    root = tmp_path_factory.mktemp("upstream")
    encode = write_encode_stage(root, tiny())
    request = StageRequest(stage="pretrain", store=root.as_uri(), config=tiny(), inputs={"encode": encode})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretrain, "train", train_here)
        execute(request, pretrain.run, NullRun())
    return {"encode": encode, "pretrain": request.folder(), "tune": tune_stage(root)}


def posttrain_stage(
    root: Path, inputs: dict[str, str], config: SonarcConfig, *, distributed: bool = False
) -> StageResult:
    request = StageRequest(
        stage="posttrain", store=root.as_uri(), config=config, inputs=inputs, progress=str(root / "progress.jsonl")
    )
    with pytest.MonkeyPatch.context() as patch:
        if not distributed:
            patch.setattr(posttrain, "train", train_here)
        return execute(request, posttrain.run, NullRun())


def test_a_checkpoint_holds_both_networks_both_optimizers_and_where_they_came_from(
    tmp_path: Path, upstream: dict[str, str]
) -> None:
    result = posttrain_stage(tmp_path, upstream, tiny())
    generator = result.outputs["generator"]
    found = load_checkpoint(generator.uri)
    assert found.manifest.sha256() == generator.sha256
    assert (found.manifest.kind, found.manifest.step, found.manifest.position) == ("generator", 4, 32)
    assert set(found.state) == {"generator", "discriminator", "opt_g", "opt_d"}
    base = store.read_json(store.join(upstream["pretrain"], "result.json"))["outputs"]["base"]
    assert found.manifest.lineage["base_uri"] == base["uri"]
    assert found.manifest.lineage["base_sha256"] == base["sha256"]
    assert found.manifest.lineage["encoder_sha256"] == "1" * 64
    before, _ = load_dit(base["uri"])
    after, _ = load_dit(generator.uri)
    assert any(not torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True))
    assert result.metrics == {"arc_contrastive_weight": 0.5, "arc_penalty_weight": 0.25}
    events, _ = read_progress(tmp_path / "progress.jsonl")
    assert {"loss_d", "loss_c", "loss_g", "r1", "std_ratio"} <= events[-1].metrics.keys()


def test_a_second_run_resumes_exactly(tmp_path: Path, upstream: dict[str, str]) -> None:
    whole = posttrain_stage(tmp_path, upstream, tiny()).outputs["generator"]
    expected = load_checkpoint(whole.uri)
    last = store.local_path(whole.uri)
    assert last is not None
    (last / "checkpoint.json").unlink()  # as a kill while writing leaves it
    again = posttrain_stage(tmp_path, upstream, tiny()).outputs["generator"]
    assert again.uri.endswith("step-4.attempt-2")
    resumed = load_checkpoint(again.uri)
    for name, tensors in {**expected.state, "model": expected.model}.items():
        mine = resumed.model if name == "model" else resumed.state[name]
        for key, value in tensors.items():
            assert torch.equal(value, mine[key]), (name, key)


@pytest.mark.slow
def test_two_workers_train_one_generator(ray_local: None, tmp_path: Path, upstream: dict[str, str]) -> None:
    one = posttrain_stage(tmp_path / "one", upstream, tiny())
    two = posttrain_stage(tmp_path / "two", upstream, tiny("compute.workers=2"), distributed=True)
    assert two.counts == one.counts
    alone, _ = load_dit(one.outputs["generator"].uri)
    shared, _ = load_dit(two.outputs["generator"].uri)
    for a, b in zip(alone.parameters(), shared.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-3)


def test_weights_that_are_not_weights_are_refused(tmp_path: Path, upstream: dict[str, str]) -> None:
    folder = tune_stage(tmp_path)
    store.write_json(store.join(folder, "weights.json"), {"contrastive_weight": "high"})
    with pytest.raises(DataError, match="does not follow its schema"):
        posttrain_stage(tmp_path, {**upstream, "tune": folder}, tiny())
