"""A model package, loaded and warm: what serving and `sonarc generate` call."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
import safetensors
import safetensors.torch
from pydantic import ValidationError

from sonarc.checkpoint import ModelSections, dit_of, load_dit
from sonarc.codec.interface import Codec
from sonarc.codec.package import load_codec
from sonarc.contracts import store
from sonarc.contracts.checkpoint import CheckpointManifest, read_manifest
from sonarc.contracts.errors import CheckpointError, ModelInputError
from sonarc.contracts.hashing import sha256_path
from sonarc.contracts.package import PackageManifest, read_package
from sonarc.runtime.edit import Edit
from sonarc.runtime.generate import Sampling, generate_audio, silence_latent
from sonarc.runtime.networks import Networks
from sonarc.text.encoder import TextEncoder
from sonarc.text.load import load_text_encoder

log = logging.getLogger(__name__)

WARM_UP_PROMPT = "a short tone"
MAX_STEPS = 1_000
REMEMBERED = 1_000
"""Prompts whose states a loaded package keeps: about 20 MB, however long it serves."""


class Generator:
    """Prompts to audio with one package or checkpoint. Use `Generator.load`.

    Attributes:
        package_sha256: the package's hash, or the checkpoint's.
        kind: which network it holds; only a base takes guidance.
        encoder: its text encoder.
        sample_rate: Hz.
        channels: audio channels A.
        max_seconds: longest clip it makes, seconds: the length it was trained on.
    """

    def __init__(
        self,
        kind: Literal["generator", "base"],
        sha256: str,
        settings: ModelSections,
        networks: Networks,
        encoder: TextEncoder,
    ) -> None:
        self.kind, self.package_sha256 = kind, sha256
        self.sample_rate, self.channels = settings.audio.sample_rate, settings.audio.channels
        self.max_seconds = settings.audio.seconds
        self._clip_samples = settings.audio.samples
        self._exact, self._fast, self.encoder = networks, networks.fast(), encoder
        self._silence_C = silence_latent(networks.codec)

    @classmethod
    def load(cls, location: str, *, sha256: str | None = None) -> Generator:
        """Load a package, or a checkpoint with the codec it names, and verify every byte of it.

        Args:
            location: the folder of either.
            sha256: the hash it must have; None: any.

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
            return cls._of_package(uri, manifest)
        return cls._of_checkpoint(uri, manifest)

    @classmethod
    def _of_package(cls, uri: str, manifest: PackageManifest) -> Generator:
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
            networks = Networks(model, codec)
        encoder = load_text_encoder(settings.text, remembered=REMEMBERED)
        _check_fit(manifest, settings, codec, encoder)
        return cls(manifest.kind, manifest.sha256(), settings, networks, encoder)

    @classmethod
    def _of_checkpoint(cls, uri: str, manifest: CheckpointManifest) -> Generator:
        model, settings = load_dit(uri)
        codec = load_codec(settings.codec.uri)
        if codec.encoder_sha256 != manifest.lineage.get("encoder_sha256", codec.encoder_sha256):
            raise CheckpointError(
                f"The checkpoint's latents are not those of the codec {settings.codec.uri}.",
                "Put back the codec it was trained on.",
            )
        encoder = load_text_encoder(settings.text, remembered=REMEMBERED)
        return cls(manifest.kind, manifest.sha256(), settings, Networks(model, codec), encoder)

    def networks(self, precision: Literal["bfloat16", "float32"]) -> Networks:
        """What a request of that precision passes through after its text is read."""
        return self._exact if precision == "float32" else self._fast

    def warm_up(self, steps: int = 4) -> None:
        """Make a clip that nobody hears, so that the first request takes no longer than the next."""
        begun = time.monotonic()
        self.generate([WARM_UP_PROMPT], [self.max_seconds], [0], steps=steps)
        log.info("package %s warm in %.1f s", self.package_sha256[:16], time.monotonic() - begun)

    def generate(
        self,
        prompts: Sequence[str],
        seconds: Sequence[float],
        seeds: Sequence[int],
        *,
        steps: int = 4,
        edit: Edit | None = None,
        guidance: float = 1.0,
        negative_prompts: Sequence[str] | None = None,
        precision: Literal["bfloat16", "float32"] = "bfloat16",
        before_step: Callable[[], None] | None = None,
    ) -> list[np.ndarray]:
        """One clip a prompt.

        Args:
            prompts: texts, at least one.
            seconds: lengths, in (0, max_seconds].
            seeds: non-negative integers; the same one gives the same clip, whatever else is in the batch.
            steps: network evaluations.
            edit: a sound that all clips begin from.
            guidance: scale of classifier-free guidance; only a base takes another than 1, which is none.
            negative_prompts: texts to move away from, one a prompt; only a base takes them.
            precision: of the network's matrix products.
            before_step: called before every evaluation of the network; what it raises ends the work.

        Returns:
            Float32 samples in about [-1, 1], `(A, S)` each.

        Raises:
            ModelInputError: a length, seed or step count out of range, differing numbers of them, or guidance
                of a generator.
        """
        if not 1 <= steps <= MAX_STEPS:
            raise ModelInputError(f"{steps} steps were asked for.", f"Ask for 1 to {MAX_STEPS}.")
        if any(seed < 0 for seed in seeds):
            raise ModelInputError(f"A seed is {min(seeds)}.", "Use seeds of 0 and more.")
        for prompt in {*prompts, *(negative_prompts or ())}:
            self.encoder([prompt])  # read by itself, and remembered: in company its states would differ by rounding
        networks = self.networks(precision)
        return generate_audio(
            networks.model,
            networks.codec,
            self.encoder,
            prompts,
            seconds,
            seeds,
            Sampling(self.kind, steps, guidance, precision),
            clip_samples=self._clip_samples,
            silence_C=self._silence_C,
            edit=edit,
            negative_prompts=negative_prompts,
            before_step=before_step,
        )


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
