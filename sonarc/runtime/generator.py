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

from sonarc.checkpoint import ModelSections, load_tensors
from sonarc.codec.interface import Codec
from sonarc.codec.package import load_codec
from sonarc.contracts import store
from sonarc.contracts.errors import CheckpointError, ModelInputError
from sonarc.contracts.hashing import sha256_path
from sonarc.contracts.package import PackageManifest, read_package
from sonarc.dit import DiT
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
    """Prompts to audio with one package. Use `Generator.load`.

    Attributes:
        package_sha256: the package's hash.
        manifest: its manifest.
        sample_rate: Hz.
        channels: audio channels A.
        max_seconds: longest clip it makes, seconds: the length it was trained on.
    """

    def __init__(
        self, manifest: PackageManifest, settings: ModelSections, model: DiT, codec: Codec, encoder: TextEncoder
    ) -> None:
        self.manifest, self.package_sha256 = manifest, manifest.sha256()
        self.sample_rate, self.channels = settings.audio.sample_rate, settings.audio.channels
        self.max_seconds = settings.audio.seconds
        self._clip_samples = settings.audio.samples
        self._exact, self._encoder = Networks(model, codec), encoder
        self._fast = self._exact.fast()
        self._silence_C = silence_latent(codec)

    @classmethod
    def load(cls, package_uri: str, *, sha256: str | None = None, steps: int = 4) -> Generator:
        """Load a package, verify every byte of it, and make one clip to warm up.

        Args:
            package_uri: the package's folder.
            sha256: the hash it must have; None: any.
            steps: step count of the warm-up.

        Raises:
            StoreError: there is no package. CheckpointError: it is damaged, tampered with, does not fit its
            own configuration, or was made with another codec or text encoder than can be had here.
        """
        begun = time.monotonic()
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
        generator = cls(manifest, settings, model.eval().requires_grad_(False), codec, encoder)
        generator.generate([WARM_UP_PROMPT], [generator.max_seconds], [0], steps=steps)
        log.info("package %s loaded and warm in %.1f s", generator.package_sha256[:16], time.monotonic() - begun)
        return generator

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
        kind = self.manifest.kind
        for prompt in {*prompts, *(negative_prompts or ())}:
            self._encoder([prompt])  # read by itself, and remembered: in company its states would differ by rounding
        networks = self._exact if precision == "float32" else self._fast
        return generate_audio(
            networks.model,
            networks.codec,
            self._encoder,
            prompts,
            seconds,
            seeds,
            Sampling(kind, steps, guidance, precision),
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
