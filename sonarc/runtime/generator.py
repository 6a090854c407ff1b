"""A model package, loaded and warm: what serving and `sonarc generate` call."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Literal

import numpy as np
import torch

from sonarc.checkpoint import ModelSections
from sonarc.contracts.errors import ModelInputError
from sonarc.runtime.device import best_device, device_of
from sonarc.runtime.edit import Edit
from sonarc.runtime.generate import Sampling, generate_audio, silence_latent
from sonarc.runtime.networks import Networks
from sonarc.runtime.package import load_model
from sonarc.text.encoder import TextEncoder

log = logging.getLogger(__name__)

WARM_UP_PROMPT = "a short tone"
MAX_STEPS = 1_000


class Generator:
    """Prompts to audio with one package or checkpoint. Use `Generator.load`.

    Attributes:
        package_sha256: the package's hash, or the checkpoint's.
        kind: which network it holds; only a base takes guidance.
        encoder: its text encoder.
        device: where it runs.
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
        self.device = device_of(networks.model)
        self._silence = cache(partial(silence_latent, networks.codec))

    @classmethod
    def load(cls, location: str, *, sha256: str | None = None, device: torch.device | str | None = None) -> Generator:
        """Load a package, or a checkpoint with the codec it names, and verify every byte of it.

        Args:
            location: the folder of either.
            sha256: the hash it must have; None: any.
            device: where it is to run; None: on a GPU where there is one, else on the CPU.

        Raises:
            StoreError: there is neither. CheckpointError: it is damaged, tampered with, does not fit its
            own configuration, or was made with another codec or text encoder than can be had here.
            ConfigError: the device is not there.
        """
        found = load_model(location, sha256=sha256, device=best_device(device))
        return cls(found.kind, found.sha256, found.settings, Networks(found.model, found.codec), found.encoder)

    def networks(self, precision: Literal["bfloat16", "float32"]) -> Networks:
        """What a request of that precision passes through after its text is read."""
        return self._exact if precision == "float32" else self._fast

    def warm_up(self, steps: int = 4) -> None:
        """Make clips that nobody hears, so that the first request takes no longer than the next.

        On a GPU that is once more for each way of sampling (see `sonarc.runtime.graphed`), which a second request
        captures.
        """
        begun = time.monotonic()
        ways: tuple[Callable[[], None] | None, ...] = (None,)
        if self.device.type == "cuda":
            ways = (None, None, _go_on, _go_on)
        self._silence()
        for before_step in ways:
            self.generate([WARM_UP_PROMPT], [self.max_seconds], [0], steps=steps, before_step=before_step)
        log.info("package %s warm on %s in %.1f s", self.package_sha256[:16], self.device, time.monotonic() - begun)

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
            silence=self._silence,
            edit=edit,
            negative_prompts=negative_prompts,
            before_step=before_step,
        )


def _go_on() -> None:
    """Nobody interrupts."""
