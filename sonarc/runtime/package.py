"""A model package taken apart: its networks, verified byte by byte, with the text encoder that belongs to them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import safetensors
import safetensors.torch
from pydantic import ValidationError

from sonarc.checkpoint import ModelSections, load_tensors
from sonarc.codec.interface import Codec
from sonarc.codec.package import load_codec
from sonarc.contracts import store
from sonarc.contracts.errors import CheckpointError
from sonarc.contracts.hashing import sha256_path
from sonarc.contracts.package import PackageManifest, read_package
from sonarc.dit import DiT
from sonarc.text.encoder import TextEncoder
from sonarc.text.load import load_text_encoder

REMEMBERED = 1_000
"""Prompts whose states a loaded package keeps: about 20 MB, however long it serves."""


@dataclass(frozen=True)
class LoadedPackage:
    """What a package holds, ready for inference.

    Attributes:
        manifest: the package's manifest.
        settings: the sections of its configuration that shape the model.
        model: base or generator.
        codec: the codec whose latents it was trained on.
        encoder: the text encoder it was trained with.
    """

    manifest: PackageManifest
    settings: ModelSections
    model: DiT
    codec: Codec
    encoder: TextEncoder


def load_package(package_uri: str, *, sha256: str | None = None) -> LoadedPackage:
    """Load a package and verify every byte of it.

    Args:
        package_uri: the package's folder.
        sha256: the hash it must have; None: any.

    Raises:
        StoreError: there is no package. CheckpointError: it is damaged, tampered with, does not fit its
        own configuration, or was made with another codec or text encoder than can be had here.
    """
    manifest = read_package(package_uri)
    if sha256 not in (None, manifest.sha256()):
        raise CheckpointError(
            f"The package {package_uri} has the hash {manifest.sha256()[:16]}, not {str(sha256)[:16]}.",
            "Register it again.",
        )
    with TemporaryDirectory() as scratch:
        folder = store.fetch_folder(package_uri, Path(scratch))
        _verify(folder, manifest)
        settings = _settings(folder)
        model = DiT(settings.dit, settings.text.width)
        try:
            tensors = safetensors.torch.load_file(folder / "generator.safetensors")
        except safetensors.SafetensorError as error:
            raise CheckpointError(
                f"The weights of {package_uri} are no safetensors file: {error}.", "Register the model again."
            ) from error
        load_tensors(model, tensors, what="generator")
        codec = load_codec((folder / "codec").as_uri())
    encoder = load_text_encoder(settings.text, remembered=REMEMBERED)
    _check_fit(manifest, settings, codec, encoder)
    return LoadedPackage(manifest, settings, model.eval().requires_grad_(False), codec, encoder)


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
