"""A published checkpoint to our checkpoint folder and codec folder, and back."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import safetensors.torch
from torch import Tensor

from sonarc.checkpoint import ModelSections, claim_attempt, load_checkpoint, save_checkpoint
from sonarc.codec.package import load_codec, save_codec
from sonarc.contracts import store
from sonarc.contracts.config import CodecConfig
from sonarc.contracts.errors import CheckpointError
from sonarc.contracts.hashing import sha256_json
from sonarc.published.config import PublishedModel, parse_model_config, read_model_config
from sonarc.published.weights import PublishedWeights, build_autoencoder, published_tensors, read_tensors, split

CODEC = "codec"
"""The autoencoder's codec folder, beside the checkpoint's."""


@dataclass(frozen=True)
class Imported:
    """What an import wrote.

    Attributes:
        checkpoint: URI of the checkpoint folder.
        codec: URI of the codec folder.
        kind: `generator` where the model was post-trained to denoise in few steps, else `base`.
        tensors, parameters: how much was read.
    """

    checkpoint: str
    codec: str
    kind: Literal["base", "generator"]
    tensors: int
    parameters: int


def import_checkpoint(config: Path, weights: Path, out: str, *, text_path: str = "") -> Imported:
    """Bring a published model into `out`: `<out>/step-0.attempt-1/` and `<out>/codec/`.

    Args:
        config: its `model_config.json`.
        weights: its `model.safetensors` or `model.ckpt`.
        out: folder to write, local or in a bucket; it must hold no checkpoint yet.
        text_path: folder or hub id of its T5 encoder; empty: the hub id that the release names.

    Raises:
        ConfigError: another architecture. CheckpointError: keys or shapes that do not fit, or `out` is taken.
    """
    model = read_model_config(config)
    if text_path:
        model = replace(model, text=model.text.model_copy(update={"path": text_path}))
    tensors = read_tensors(weights)
    found = split(tensors, model)
    out = store.as_uri(out)
    if store.list_files(out):
        raise CheckpointError(f"{out} is not empty.", "Name a new folder.")
    try:
        return _write(out, model, found, tensors)
    except BaseException:
        store.remove_folder(out)  # it was empty, and half an import would be in the way of the next
        raise


def _write(out: str, model: PublishedModel, found: PublishedWeights, tensors: dict[str, Tensor]) -> Imported:
    codec = build_autoencoder(model)
    codec.vae.load_state_dict(found.autoencoder)
    codec_uri = store.join(out, CODEC)
    save_codec(codec, codec_uri)
    sections = ModelSections(
        audio=model.audio,
        codec=CodecConfig(kind="oobleck", uri=codec_uri),
        text=model.text,
        dit=model.dit,
        published=dict(model.tree),
    )
    kind: Literal["base", "generator"] = (
        "generator" if model.tree["model"]["diffusion"]["diffusion_objective"] == "rf_denoiser" else "base"
    )
    written = sections.model_dump(mode="json")
    uri, _ = save_checkpoint(
        out,
        kind=kind,
        step=0,
        attempt=claim_attempt(out),
        position=0,
        model=found.dit,
        config=written,
        config_sha256=sha256_json(written),
        lineage={"encoder_sha256": codec.encoder_sha256},
    )
    return Imported(uri, codec_uri, kind, len(tensors), sum(tensor.numel() for tensor in tensors.values()))


def export_checkpoint(checkpoint: str, out: Path) -> list[Path]:
    """Write an imported checkpoint, trained further or not, in the published layout again.

    Args:
        checkpoint: URI of a checkpoint folder whose model came from `import_checkpoint`.
        out: folder for `model_config.json` and `model.safetensors`; created if need be.

    Raises:
        CheckpointError: the checkpoint is damaged, or has no published form.
    """
    found = load_checkpoint(checkpoint, state=False)
    sections = ModelSections.model_validate(found.config)
    if sections.published is None:
        raise CheckpointError(
            f"{checkpoint} has no published form: its codec or conditioning is Sonarc's own.",
            "Only checkpoints that came from import-checkpoint can be exported.",
        )
    model = parse_model_config(sections.published)
    codec = load_codec(sections.codec.uri)
    vae = {name.removeprefix("vae."): tensor for name, tensor in codec.state_dict().items()}
    tensors = published_tensors(PublishedWeights(found.model, vae))
    split(tensors, model)
    out.mkdir(parents=True, exist_ok=True)
    files = [out / "model_config.json", out / "model.safetensors"]
    files[0].write_text(json.dumps(sections.published, indent=2) + "\n", encoding="utf-8")
    temporary = out / ".model.safetensors.part"
    safetensors.torch.save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary)
    temporary.replace(files[1])
    return files
