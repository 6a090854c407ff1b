"""A checkpoint ready to be sampled in any way: network, codec and text encoder together."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import cache, partial

import numpy as np
import torch
from numpy.typing import NDArray

from sonarc.checkpoint import load_dit
from sonarc.checkpoint.folder import ModelSections
from sonarc.codec.interface import Codec
from sonarc.codec.oobleck import OobleckCodec
from sonarc.codec.spectral import SpectralCodec
from sonarc.contracts.config import TextConfig
from sonarc.dit import DiT
from sonarc.runtime.device import best_device, device_of
from sonarc.runtime.generate import Sampling, generate_audio, silence_latent
from sonarc.runtime.networks import Networks
from sonarc.text import TextEncoder, load_text_encoder

Make = Callable[[Sequence[str], Sequence[float], Sequence[int]], Sequence[NDArray[np.float32]]]
"""`make(prompts, seconds, seeds)` gives a clip `(A, S_i)` for each."""


class SampledCheckpoint:
    """A base or generator with the codec whose latents it was trained on.

    Args:
        checkpoint_uri: location of the checkpoint.
        prompts: read by the text encoder at once, which remembers them, so that a row's clock sees only sampling and
            decoding.
        device: where clips are made; None: on a GPU where there is one, else on the CPU.

    Raises:
        ConfigError: the device is not there.
    """

    def __init__(
        self,
        checkpoint_uri: str,
        codec: SpectralCodec | OobleckCodec,
        prompts: Sequence[str] = (),
        *,
        device: torch.device | str | None = None,
    ) -> None:
        where = best_device(device)
        self.model: DiT
        self.bound: ModelSections
        self.model, self.bound = load_dit(checkpoint_uri)
        if where != device_of(codec):
            codec = copy.deepcopy(codec).to(where)  # the caller's stays where it is
        self.codec: Codec = codec
        self._exact = Networks(self.model.to(where), codec)
        self._fast = self._exact.fast()
        self._encoder = _encoder(self.bound.text, where)
        if prompts:
            self._encoder(prompts)
        self._silence = cache(partial(silence_latent, codec))

    def under(self, sampling: Sampling) -> Make:
        """What makes clips under a sampling."""

        def make(
            prompts: Sequence[str], seconds: Sequence[float], seeds: Sequence[int]
        ) -> Sequence[NDArray[np.float32]]:
            networks = self._exact if sampling.precision == "float32" else self._fast
            return generate_audio(
                networks.model,
                networks.codec,
                self._encoder,
                prompts,
                seconds,
                seeds,
                sampling,
                clip_samples=self.bound.audio.samples,
                silence=self._silence,
            )

        return make


@cache
def _encoder(config: TextConfig, device: torch.device) -> TextEncoder:
    return load_text_encoder(config, device=device)
