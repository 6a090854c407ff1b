"""Pre-training through Ray Train: workers, checkpoints, resume, errors."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from one_worker import train_here
from tiny_latents import write_encode_stage

from ray_jobs import pretrain
from sonarc.checkpoint import load_checkpoint, load_dit
from sonarc.codec.package import load_codec
from sonarc.contracts import store
from sonarc.contracts.config import SonarcConfig
from sonarc.contracts.errors import CheckpointError, ConfigError
from sonarc.contracts.package import PackageLineage, PackageManifest
from sonarc.contracts.presets import load
from sonarc.contracts.progress import read_progress
from sonarc.contracts.result import StageRequest, StageResult
from sonarc.contracts.stage import execute
from sonarc.text import load_text_encoder
from sonarc.tracking.packages import build_package
from sonarc.tracking.runs import NullRun

OVERRIDES = ("pretrain.steps=4", "pretrain.checkpoint_every=2", "pretrain.batch=4", "compute.threads=1")


def tiny(*overrides: str) -> SonarcConfig:
    return load("ci", [*OVERRIDES, *overrides])


def pretrain_stage(
    root: Path, encode: str, config: SonarcConfig, *, distributed: bool = False, base: str = ""
) -> StageResult:
    request = StageRequest(
        stage="pretrain",
        store=root.as_uri(),
        config=config,
        base=base,
        inputs={"encode": encode},
        progress=str(root / "progress.jsonl"),
    )
    with pytest.MonkeyPatch.context() as patch:
        if not distributed:
            patch.setattr(pretrain, "train", train_here)
        return execute(request, pretrain.run, NullRun())


@pytest.fixture(scope="module")
def encode(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_encode_stage(tmp_path_factory.mktemp("encode"), tiny())


@pytest.fixture(scope="module")
def alone(encode: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a whole training by one worker."""
    root = tmp_path_factory.mktemp("alone")
    pretrain_stage(root, encode, tiny())
    return root


def base_of(root: Path) -> str:
    (found,) = root.glob("stages/pretrain/*/checkpoints/step-4.attempt-*")
    return found.as_uri()


@pytest.mark.slow
def test_two_workers_see_the_batches_of_one_and_leave_a_loadable_base(
    ray_local: None, alone: Path, encode: str, tmp_path: Path
) -> None:
    result = pretrain_stage(tmp_path, encode, tiny("compute.workers=2"), distributed=True)

    assert result.counts == {"steps": 4, "clips_drawn": 16}
    base = result.outputs["base"]
    model, bound = load_dit(base.uri)
    assert bound.dit == tiny().dit
    assert load_checkpoint(base.uri).manifest.sha256() == base.sha256
    one, _ = load_dit(base_of(alone))
    for name, weight in one.state_dict().items():
        # bfloat16 products of half batches round differently; Adam turns that into at most a step's size.
        assert torch.allclose(weight, model.state_dict()[name], atol=2.5e-3), name
    events, _ = read_progress(tmp_path / "progress.jsonl")
    assert events[-1].done == 4
    assert {"loss", "grad_norm", "lr"} <= events[-1].metrics.keys()
    assert not list(tmp_path.glob("stages/pretrain/*/ray")), "Ray's own record stayed behind"


def test_a_killed_training_resumes_from_its_last_whole_checkpoint(alone: Path, encode: str, tmp_path: Path) -> None:
    shutil.copytree(alone, tmp_path / "killed")
    (last,) = (tmp_path / "killed").glob("stages/pretrain/*/checkpoints/step-4.attempt-1")
    (last / "checkpoint.json").unlink()  # as a kill in the middle of writing leaves it
    resumed = pretrain_stage(tmp_path / "killed", encode, tiny()).outputs["base"]

    assert resumed.uri.endswith("step-4.attempt-2")
    expected, found = load_checkpoint(base_of(alone)), load_checkpoint(resumed.uri)
    for name, weight in expected.model.items():
        assert torch.equal(weight, found.model[name]), name


def test_a_warm_start_begins_with_the_weights_of_the_base_that_is_named(
    alone: Path, encode: str, tmp_path: Path
) -> None:
    config = tiny("pretrain.steps=1", "pretrain.lr=1e-12", "pretrain.weight_decay=0")
    uri, package = base_package(alone, tmp_path, config)
    result = pretrain_stage(tmp_path, encode, config, base=uri)
    assert result.counts == {"steps": 1, "clips_drawn": 4, "warm_start": 1}
    warm = load_checkpoint(result.outputs["base"].uri)
    assert warm.manifest.lineage["warm_start_sha256"] == package.sha256()
    for name, weight in load_checkpoint(base_of(alone)).model.items():
        assert torch.allclose(weight, warm.model[name], atol=1e-6), name


@pytest.mark.parametrize(
    ("damage", "said"), [("weights", "is not the one its manifest names"), ("text", "reads the text encoder t5:0")]
)
def test_a_base_that_is_not_what_it_says_is_not_begun_with(
    alone: Path, encode: str, tmp_path: Path, damage: str, said: str
) -> None:
    config = tiny("pretrain.steps=1")
    uri, _ = base_package(alone, tmp_path, config, text_encoder="t5:0" if damage == "text" else "")
    if damage == "weights":
        where = store.join(uri, "generator.safetensors")
        store.write_bytes(where, store.read_bytes(where)[:-1] + b"x")
    with pytest.raises(CheckpointError, match=said):
        pretrain_stage(tmp_path, encode, config, base=uri)


def base_package(alone: Path, root: Path, config: SonarcConfig, text_encoder: str = "") -> tuple[str, PackageManifest]:
    """The base of `alone` as a package below `root`."""
    codec, encoder = load_codec(config.codec.uri), load_text_encoder(config.text)
    lineage = PackageLineage(
        base_uri=base_of(alone),
        base_sha256="b",
        generator_sha256="",
        codec_sha256=codec.sha256,
        dataset_sha256="d",
        dataset_version=1,
        text_encoder=text_encoder or f"{encoder.name}:{encoder.sha256}",
        encoder_sha256=codec.encoder_sha256,
    )
    return build_package(
        root.as_uri(), kind="base", checkpoint_uri=base_of(alone), config=config, lineage=lineage, scores={}
    )


@pytest.mark.slow
def test_a_workers_error_reaches_the_caller_in_its_own_words(ray_local: None, encode: str, tmp_path: Path) -> None:
    config = tiny(f'text.path="{tmp_path}/nowhere"', "compute.max_failures=0")
    with pytest.raises(ConfigError, match=r"text\.path|lacks"):
        pretrain_stage(tmp_path, encode, config, distributed=True)


def test_more_workers_than_clips_a_batch_are_refused(encode: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"compute\.workers is 5"):
        pretrain_stage(tmp_path, encode, tiny("compute.workers=5"))


def test_latents_of_other_channels_are_refused(encode: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="64 channels"):
        pretrain_stage(tmp_path, encode, tiny("dit.latent_channels=32"))
