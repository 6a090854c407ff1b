"""Published checkpoints come in whole or not at all, and go out byte for byte."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import synthetic_release as synthetic
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from pipelines.cli import app
from sonarc import published
from sonarc.checkpoint import load_dit
from sonarc.codec import load_codec
from sonarc.codec.config import OobleckCodecConfig
from sonarc.contracts.errors import CheckpointError, ConfigError, StoreError
from sonarc.contracts.presets import saos
from sonarc.dit import Conditioning
from sonarc.published.config import parse_model_config
from sonarc.samplers import with_cfg
from sonarc.text.encoder import TextStates

pytest.importorskip("diffusers")


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    root = tmp_path_factory.mktemp("published")
    return root, published.import_checkpoint(*synthetic.write(root / "release"), str(root / "own"))


@pytest.mark.parametrize("ckpt", [False, True])
def test_what_goes_in_comes_out_byte_for_byte(tmp_path: Path, ckpt: bool) -> None:
    found = published.import_checkpoint(*synthetic.write(tmp_path / "release", ckpt=ckpt), str(tmp_path / "own"))
    assert (found.kind, found.tensors) == ("generator", len(synthetic.shapes()))
    config, weights = published.export_checkpoint(found.checkpoint, tmp_path / "out")
    assert json.loads(config.read_text()) == synthetic.model_config()
    given, returned = synthetic.tensors(), load_file(weights)
    assert given.keys() == returned.keys()
    for name, tensor in given.items():
        assert tensor.dtype == returned[name].dtype
        assert tensor.numpy().tobytes() == returned[name].numpy().tobytes(), name


def test_the_imported_model_and_codec_work(imported: tuple[Path, Any]) -> None:
    _, found = imported
    dit, sections = load_dit(found.checkpoint)
    assert sections.text.kind == "t5"
    assert sections.dit.global_cond == "prepend"
    text = TextStates(torch.randn(1, 64, synthetic.COND), torch.ones(1, 64, dtype=torch.bool))
    v_BCT = dit(torch.randn(1, synthetic.LATENT, 8), torch.tensor([0.5]), Conditioning(text, torch.tensor([2.0])))
    assert v_BCT.shape == (1, synthetic.LATENT, 8)
    assert torch.isfinite(v_BCT).all()
    audio_BAS = load_codec(found.codec).decode(torch.randn(1, synthetic.LATENT, 4))
    assert audio_BAS.shape == (1, 2, 8192)
    assert audio_BAS.std() > 0


def test_the_preset_saos_has_the_published_shape() -> None:
    tree = synthetic.model_config()
    tree["model"]["diffusion"]["config"] |= {
        "io_channels": 64, "embed_dim": 1024, "depth": 16, "num_heads": 8,
        "cond_token_dim": 768, "global_cond_dim": 768,
    }  # fmt: skip
    coders = tree["model"]["pretransform"]["config"]
    coders["encoder"]["config"] |= {"channels": 128, "latent_dim": 128}
    coders["decoder"]["config"] |= {"channels": 128, "latent_dim": 64}
    tree["model"]["conditioning"]["cond_dim"] = 768
    tree["model"]["conditioning"]["configs"][0]["config"]["t5_model_name"] = "t5-base"
    model = parse_model_config(tree)
    assert model.dit == saos().dit
    assert model.audio == saos().audio
    assert model.codec == OobleckCodecConfig()
    assert (model.text.width, model.text.max_tokens) == (saos().text.width, saos().text.max_tokens)
    with torch.device("meta"):
        dit = published.build_dit(model)
    own = sum(p.numel() for name, p in dit.named_parameters() if not name.startswith("conditioners."))
    assert own == 340_879_488


NORM = "model.model.transformer.layers.1.pre_norm.gamma"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({NORM: None}, f"missing {NORM}"),
        ({"model.model.extra.weight": torch.zeros(1)}, "unexpected model.model.extra.weight"),
        ({NORM: torch.zeros(63)}, rf"{NORM} is \(63,\), not \(64,\)"),
        (
            {"pretransform.model.decoder.layers.7.weight_v": None},
            "missing pretransform.model.decoder.layers.7.weight_v",
        ),
        ({"pretransform.model.decoder.layers.6.alpha": torch.zeros(3)}, r"layers.6.alpha is \(3,\), not \(8,\)"),
    ],
)
def test_a_key_that_does_not_fit_is_refused_by_its_published_name(
    tmp_path: Path, change: dict[str, Any], told: str
) -> None:
    config, weights = synthetic.write(tmp_path / "release", **change)
    with pytest.raises(CheckpointError, match=told):
        published.import_checkpoint(config, weights, str(tmp_path / "own"))
    assert not (tmp_path / "own").exists()


def test_an_import_that_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise StoreError("The disk is full.", "Free space.")

    monkeypatch.setattr(published.folder, "save_checkpoint", full)
    with pytest.raises(StoreError):
        published.import_checkpoint(*synthetic.write(tmp_path / "release"), str(tmp_path / "own"))
    assert not list((tmp_path / "own").rglob("*.safetensors"))


def test_all_that_does_not_fit_is_listed_at_once(tmp_path: Path) -> None:
    config, weights = synthetic.write(tmp_path, **{NORM: None, "stray": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=f"2 keys do not fit.*missing {NORM}; unexpected stray"):
        published.import_checkpoint(config, weights, str(tmp_path / "own"))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("model_type", "autoencoder"),
        ("model.diffusion.type", "unet"),
        ("model.diffusion.diffusion_objective", "v"),
        ("model.diffusion.config.attn_kwargs", {"qk_norm": "rms"}),
        ("model.diffusion.config.patch_size", 2),
        ("model.diffusion.config.global_cond_type", "adaLN"),
        ("model.diffusion.config.num_memory_tokens", 64),
        ("model.diffusion.config.num_heads", 3),
        ("model.diffusion.global_cond_ids", []),
        ("model.conditioning.cond_dim", 768),
        ("model.pretransform.config.bottleneck.type", "rvq"),
        ("model.pretransform.config.decoder.config.final_tanh", True),
        ("sample_rate", 48_000),
        ("model.diffusion.config.io_channels", 8),
        ("model.conditioning.configs", [1]),
    ],
)
def test_another_architecture_is_refused_by_the_option_that_differs(path: str, value: Any) -> None:
    tree = synthetic.model_config()
    *parents, leaf = path.split(".")
    node: Any = tree
    for part in parents:
        node = node[part]
    node[leaf] = value
    with pytest.raises(ConfigError, match=leaf.replace("num_heads", "heads")):
        parse_model_config(tree)


class Run:
    """What unpickling must never do."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("hacked",)


def test_no_code_in_a_ckpt_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {"a": Run()}}, tmp_path / "model.ckpt")
    with pytest.raises(CheckpointError, match="no checkpoint of plain tensors"):
        published.read_tensors(tmp_path / "model.ckpt")
    assert not (tmp_path / "hacked").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "model.ckpt"])
def test_a_damaged_or_missing_file_is_one_clear_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(CheckpointError, match=name):
        published.read_tensors(tmp_path / name)
    (tmp_path / name).write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError, match=name):
        published.read_tensors(tmp_path / name)


def test_conditioning_tensors_of_ones_own_give_the_same_velocity(imported: tuple[Path, Any]) -> None:
    dit, _ = load_dit(imported[1].checkpoint)
    text = TextStates(torch.randn(2, 64, synthetic.COND), torch.ones(2, 64, dtype=torch.bool))
    seconds_B, x_BCT, t_B = torch.tensor([1.0, 11.0]), torch.randn(2, synthetic.LATENT, 16), torch.tensor([0.3, 0.9])
    duration_BE = dit.conditioners["seconds_total"](seconds_B)
    context_BME = torch.cat((text.tokens_BLE, duration_BE[:, None]), dim=1)
    torch.testing.assert_close(
        dit.velocity(x_BCT, t_B, context_BME, duration_BE), dit(x_BCT, t_B, Conditioning(text, seconds_B))
    )


def test_guidance_nulls_the_whole_cross_attention_as_published(imported: tuple[Path, Any]) -> None:
    dit, _ = load_dit(imported[1].checkpoint)
    text = TextStates(torch.randn(1, 64, synthetic.COND), torch.ones(1, 64, dtype=torch.bool))
    seconds_B, x_BCT, t_B = torch.tensor([3.0]), torch.randn(1, synthetic.LATENT, 16), torch.tensor([0.7])
    duration_BE = dit.conditioners["seconds_total"](seconds_B)
    context_BME = torch.cat((text.tokens_BLE, duration_BE[:, None]), dim=1)
    given = dit.velocity(x_BCT, t_B, context_BME, duration_BE)
    null = dit.velocity(x_BCT, t_B, torch.zeros_like(context_BME), duration_BE)
    guided = with_cfg(dit, Conditioning(text, seconds_B), 3.0)(x_BCT, t_B)
    torch.testing.assert_close(guided, null + 3.0 * (given - null), rtol=1e-4, atol=1e-5)


def test_the_commands_say_what_they_did_and_keep_what_is_there(tmp_path: Path) -> None:
    config, weights = synthetic.write(tmp_path / "release")
    run, own = CliRunner(), str(tmp_path / "own")
    first = run.invoke(app, ["import-checkpoint", str(config), str(weights), "--out", own])
    assert first.exit_code == 0, first.output
    assert "generator" in first.output
    again = run.invoke(app, ["import-checkpoint", str(config), str(weights), "--out", own])
    assert again.exit_code != 0
    assert "not empty" in again.output
    out = run.invoke(app, ["export-checkpoint", f"{own}/step-0.attempt-1", "--out", str(tmp_path / "out")])
    assert out.exit_code == 0, out.output
    assert (tmp_path / "out" / "model.safetensors").stat().st_size == weights.stat().st_size
