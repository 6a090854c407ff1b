"""A model package, loaded and warm: what serving and `sonarc generate` call."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from sonarc.checkpoint import ModelSections
from sonarc.codec.interface import Codec
from sonarc.contracts.errors import ModelInputError
from sonarc.contracts.package import PackageManifest
from sonarc.dit import DiT
from sonarc.runtime.edit import Edit
from sonarc.runtime.generate import Sampling, generate_audio, silence_latent
from sonarc.runtime.package import load_package
from sonarc.text.encoder import TextEncoder

log = logging.getLogger(__name__)

WARM_UP_PROMPT = "a short tone"
MAX_STEPS = 1_000


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
        self._model, self._codec, self._encoder = model, codec, encoder
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
        found = load_package(package_uri, sha256=sha256)
        generator = cls(found.manifest, found.settings, found.model, found.codec, found.encoder)
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
        return generate_audio(
            self._model,
            self._codec,
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
