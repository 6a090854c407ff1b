"""Checkpoints and a whole model package of random tiny models, for tests of what makes and loads packages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from sonarc.checkpoint import save_checkpoint, sections
from sonarc.codec.config import SpectralCodecConfig
from sonarc.codec.package import save_codec
from sonarc.codec.spectral import SpectralCodec
from sonarc.contracts.config import ArcConfig, AudioConfig, CodecConfig, DiTConfig, SonarcConfig
from sonarc.contracts.package import PackageLineage, PackageManifest
from sonarc.dit import DiT
from sonarc.text.load import load_text_encoder
from sonarc.tracking.packages import build_package

SAMPLES = 32_768


def make_codec(folder: Path, seed: int = 0) -> str:
    """The URI of a random tiny codec below `folder`."""
    torch.manual_seed(seed)
    codec = SpectralCodec(SpectralCodecConfig(dim=32, encoder_blocks=1, decoder_blocks=1, fine_blocks=1))
    torch.nn.init.normal_(codec.decoder.head.weight, std=0.2)  # loud enough not to pass for silence
    uri = (folder / f"codec-{seed}").as_uri()
    save_codec(codec, uri, "# Tiny codec\n")
    return uri


@dataclass(frozen=True)
class Models:
    """A codec and two checkpoints, as (URI, hash)."""

    config: SonarcConfig
    codec_sha256: str
    encoder_sha256: str
    base: tuple[str, str]
    generator: tuple[str, str]


def make_models(folder: Path, seed: int = 0) -> Models:
    """A codec, a base and a generator below `folder`; another seed is other models."""
    torch.manual_seed(seed)
    codec = SpectralCodec(SpectralCodecConfig(dim=32, encoder_blocks=1, decoder_blocks=1, fine_blocks=1))
    torch.nn.init.normal_(codec.decoder.head.weight, std=0.2)  # loud enough not to pass for silence
    codec_uri = (folder / f"codec-{seed}").as_uri()
    codec_sha256 = save_codec(codec, codec_uri, "# Tiny codec\n")
    config = SonarcConfig(
        audio=AudioConfig(samples=SAMPLES),
        codec=CodecConfig(uri=codec_uri),
        dit=DiTConfig(width=64, depth=2, heads=2, patch=2, cond_width=64),
        arc=ArcConfig(discriminator_depth=1),
    )
    return Models(
        config=config,
        codec_sha256=codec_sha256,
        encoder_sha256=codec.encoder_sha256,
        base=_checkpoint(folder / f"base-{seed}", "base", config, codec),
        generator=_checkpoint(folder / f"generator-{seed}", "generator", config, codec),
    )


def _checkpoint(
    folder: Path, kind: Literal["base", "generator"], config: SonarcConfig, codec: SpectralCodec
) -> tuple[str, str]:
    model = DiT(config.dit, config.text.width)
    for parameter in model.parameters():  # the zero-initialised output would make every prompt sound the same
        torch.nn.init.normal_(parameter, std=0.05)
    uri, manifest = save_checkpoint(
        folder.as_uri(),
        kind=kind,
        step=1,
        attempt=1,
        position=0,
        model=model.state_dict(),
        config=sections(config).model_dump(mode="json"),
        config_sha256=config.sha256(),
        lineage={"encoder_sha256": codec.encoder_sha256},
    )
    return uri, manifest.sha256()


def make_package(
    folder: Path, seed: int = 0, kind: Literal["generator", "base"] = "generator"
) -> tuple[str, PackageManifest]:
    """A generator's, or its base's, package below `folder`. Returns its URI and manifest."""
    models = make_models(folder, seed)
    encoder = load_text_encoder(models.config.text)
    lineage = PackageLineage(
        base_uri=models.base[0],
        base_sha256=models.base[1],
        generator_sha256=models.generator[1],
        codec_sha256=models.codec_sha256,
        dataset_sha256="d",
        dataset_version=1,
        text_encoder=f"{encoder.name}:{encoder.sha256}",
    )
    return build_package(
        (folder / "store").as_uri(),
        kind=kind,
        checkpoint_uri=models.generator[0] if kind == "generator" else models.base[0],
        config=models.config,
        lineage=lineage,
        scores={"schema": "sonarc.scores/1", "scores": [], "differences": []},
    )
