"""A codec's files: what goes in comes out, and nothing that does not fit is loaded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sonarc.codec import load_codec, save_codec
from sonarc.contracts.errors import CheckpointError
from tests.codec.test_spectral import tiny_codec


def test_a_round_trip_keeps_hash_and_sound(tmp_path: Path) -> None:
    codec = tiny_codec()
    stored = save_codec(codec, str(tmp_path), "# card\n")
    loaded = load_codec(str(tmp_path))
    assert stored == codec.sha256 == loaded.sha256
    assert save_codec(loaded, str(tmp_path / "again")) == stored
    z_BCT = torch.randn(1, 4, 10)
    before, after = codec.decode(z_BCT), loaded.decode(z_BCT)
    assert (after - before).norm() < 0.02 * before.norm()  # float16 weights
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == [
        "card.md",
        "config.json",
        "model.safetensors",
    ]


def test_the_hash_covers_weights_and_configuration() -> None:
    codec, other = tiny_codec(), tiny_codec()
    assert codec.sha256 == other.sha256
    other.latent_std.fill_(3.0)
    assert codec.sha256 != other.sha256
    other.latent_std.fill_(1.0)
    other.config = other.config.model_copy(update={"sample_rate": 48_000})
    assert codec.sha256 != other.sha256


def test_another_decoder_leaves_the_encoders_hash() -> None:
    codec, other = tiny_codec(), tiny_codec()
    other.decoder.head.bias.data += 1.0
    assert codec.encoder_sha256 == other.encoder_sha256
    other.latent_std.fill_(3.0)
    assert codec.encoder_sha256 != other.encoder_sha256


def _drop(tensors: dict[str, Tensor]) -> None:
    del tensors["encoder.embed.weight"]


def _add(tensors: dict[str, Tensor]) -> None:
    tensors["stowaway"] = torch.zeros(1)


def _reshape(tensors: dict[str, Tensor]) -> None:
    tensors["encoder.embed.bias"] = torch.zeros(3)


def _poison(tensors: dict[str, Tensor]) -> None:
    tensors["decoder.head.bias"][0] = float("nan")


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (_drop, "missing: encoder.embed.weight"),
        (_add, "unexpected: stowaway"),
        (_reshape, "mis-shaped: encoder.embed.bias"),
        (_poison, "not finite: decoder.head.bias"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    tmp_path: Path, damage: Callable[[dict[str, Tensor]], None], told: str
) -> None:
    save_codec(tiny_codec(), str(tmp_path))
    tensors = load_file(tmp_path / "model.safetensors")
    damage(tensors)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=told):
        load_codec(str(tmp_path))


def test_damaged_or_missing_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no codec"):
        load_codec(str(tmp_path / "nothing"))
    with pytest.raises(CheckpointError, match="no codec 'codec-v0'"):
        load_codec("codec-v0")
    save_codec(tiny_codec(), str(tmp_path))
    weights = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(CheckpointError, match="damaged"):
        load_codec(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(weights)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"kind": "wavelet"}))
    with pytest.raises(CheckpointError, match="not valid"):
        load_codec(str(tmp_path))
