"""A package or checkpoint taken apart: its networks, verified byte by byte, and the text encoder that fits them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import safetensors
import safetensors.torch
import torch
from pydantic import ValidationError

from sonarc.checkpoint import ModelSections, dit_of, load_dit
from sonarc.codec.interface import Codec
from sonarc.codec.package import load_codec
from sonarc.contracts import store
from sonarc.contracts.checkpoint import CheckpointManifest, read_manifest
from sonarc.contracts.errors import CheckpointError
from sonarc.contracts.hashing import sha256_path
from sonarc.contracts.package import PackageManifest, read_package
from sonarc.dit import DiT
from sonarc.runtime.device import CPU
from sonarc.text.encoder import TextEncoder
from sonarc.text.load import load_text_encoder

REMEMBERED = 1_000
"""Prompts whose states a loaded package keeps: about 20 MB, however long it serves."""


@dataclass(frozen=True)
class LoadedModel:
    """What a package or a checkpoint holds, ready for inference.

    Attributes:
        kind: which network it is.
        sha256: the package's hash, or the checkpoint's.
        settings: the sections of its configuration that shape the model.
        model: base or generator.
        codec: the codec whose latents it was trained on.
        encoder: the text encoder it was trained with.
    """

    kind: Literal["generator", "base"]
    sha256: str
    settings: ModelSections
    model: DiT
    codec: Codec
    encoder: TextEncoder


def load_model(location: str, *, sha256: str | None = None, device: torch.device = CPU) -> LoadedModel:
    """Load a package, or a checkpoint with the codec it names, and verify every byte of it.

    Args:
        location: the folder of either.
        sha256: the hash it must have; None: any.
        device: where its networks are to be.

    Raises:
        StoreError: there is neither. CheckpointError: it is damaged, tampered with, does not fit its
        own configuration, or was made with another codec or text encoder than can be had here.
    """
    uri = store.as_uri(location)
    is_checkpoint = store.exists(store.join(uri, "checkpoint.json"))
    manifest = read_manifest(uri) if is_checkpoint else read_package(uri)
    if sha256 not in (None, manifest.sha256()):
        raise CheckpointError(
            f"The package {location} has the hash {manifest.sha256()[:16]}, not {str(sha256)[:16]}.",
            "Register it again.",
        )
    if isinstance(manifest, PackageManifest):
        return _of_package(uri, manifest, device)
    return _of_checkpoint(uri, manifest, device)


def _of_package(uri: str, manifest: PackageManifest, device: torch.device) -> LoadedModel:
    with TemporaryDirectory() as scratch:
        folder = store.fetch_folder(uri, Path(scratch))
        _verify(folder, manifest)
        settings = _settings(folder)
        try:
            tensors = safetensors.torch.load_file(folder / "generator.safetensors")
        except safetensors.SafetensorError as error:
            raise CheckpointError(
                f"The weights of {uri} are no safetensors file: {error}.", "Register the model again."
            ) from error
        model = dit_of(tensors, settings.dit, settings.text.width, what="generator")
        codec = load_codec((folder / "codec").as_uri())
    encoder = load_text_encoder(settings.text, remembered=REMEMBERED, device=device)
    _check_fit(manifest, settings, codec, encoder)
    return LoadedModel(manifest.kind, manifest.sha256(), settings, model.to(device), codec.to(device), encoder)


def _of_checkpoint(uri: str, manifest: CheckpointManifest, device: torch.device) -> LoadedModel:
    model, settings = load_dit(uri)
    codec = load_codec(settings.codec.uri)
    trained_on = manifest.lineage.get("encoder_sha256")
    if trained_on is not None and trained_on != codec.encoder_sha256:
        raise CheckpointError(
            f"The checkpoint's latents are not those of the codec {settings.codec.uri}.",
            "Put back the codec it was trained on.",
        )
    encoder = load_text_encoder(settings.text, remembered=REMEMBERED, device=device)
    return LoadedModel(manifest.kind, manifest.sha256(), settings, model.to(device), codec.to(device), encoder)


def _verify(folder: Path, manifest: PackageManifest) -> None:
    for name, wanted in manifest.files.items():
        if sha256_path(folder / name) != wanted:
            raise CheckpointError(
                f"The package's file {name} is not the one its manifest names.", "Do not load it; register again."
            )


def _settings(folder: Path) -> ModelSections:
    """The sections of the package's config tree that shape the model; other sections may be of another version."""
    tree = store.read_json((folder / "config.json").as_uri())
    try:
        return ModelSections.model_validate({name: tree[name] for name in ModelSections.model_fields if name in tree})
    except (ValidationError, TypeError) as error:
        raise CheckpointError(
            f"The package's config.json describes no model: {error}.", "Register it again."
        ) from error


def _check_fit(manifest: PackageManifest, settings: ModelSections, codec: Codec, encoder: TextEncoder) -> None:
    if codec.sha256 != manifest.lineage.codec_sha256:
        raise CheckpointError(
            f"The package's codec has the hash {codec.sha256[:16]}, its lineage says "
            f"{manifest.lineage.codec_sha256[:16]}.",
            "Do not load it.",
        )
    if f"{encoder.name}:{encoder.sha256}" != manifest.lineage.text_encoder:
        raise CheckpointError(
            f"The model was trained with the text encoder {manifest.lineage.text_encoder[:24]}, "
            f"here is {encoder.name}:{encoder.sha256[:16]}.",
            "Install the encoder the model was trained with.",
        )
    if codec.latent_channels != settings.dit.latent_channels or codec.sample_rate != settings.audio.sample_rate:
        raise CheckpointError("The package's codec and generator do not fit each other.", "Do not load it.")
