"""Stable Audio Open's autoencoder (diffusers' `AutoencoderOobleck`) behind Sonarc's codec interface.

Shapes: B batch, A audio channels, S samples, C latent channels, T latent frames.
"""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from sonarc.codec.config import OobleckCodecConfig
from sonarc.contracts.errors import ConfigError, ModelInputError

_EDGE_TAPS = 3
"""Samples to either side of the first and the last convolution."""
_UNIT_TAPS = 3 + 9 + 27
"""Likewise of a block's three residual units."""


class OobleckCodec(nn.Module):
    """Time-domain convolutional autoencoder; encodes to the posterior's mean, unscaled as published."""

    DECODER = "vae.decoder."
    """How the names of the decoder's tensors begin."""

    def __init__(self, config: OobleckCodecConfig) -> None:
        super().__init__()
        try:
            from diffusers import AutoencoderOobleck  # seconds to import, and only needed here
        except ImportError as error:
            raise ConfigError(
                "The codec of kind 'oobleck' needs the package diffusers, which is not installed.",
                "Install Sonarc with its extra: pip install 'sonarc[hub]'.",
            ) from error
        self.config = config
        with warnings.catch_warnings():
            # diffusers still uses the older weight norm, whose names the published files have.
            warnings.filterwarnings("ignore", message=".*weight_norm.*deprecated", category=FutureWarning)
            self.vae = AutoencoderOobleck(
                encoder_hidden_size=config.encoder_width,
                downsampling_ratios=list(config.strides),
                channel_multiples=list(config.multiples),
                decoder_channels=config.decoder_width,
                decoder_input_channels=config.latent_channels,
                audio_channels=config.channels,
                sampling_rate=config.sample_rate,
            )

    @property
    def sample_rate(self) -> int:
        return self.config.sample_rate

    @property
    def channels(self) -> int:
        return self.config.channels

    @property
    def latent_channels(self) -> int:
        return self.config.latent_channels

    @property
    def hop(self) -> int:
        return math.prod(self.config.strides)

    @property
    def reach(self) -> int:
        reach, rate = float(_EDGE_TAPS), 1  # in latent frames, and samples a frame at each block's end
        for stride in reversed(self.config.strides):
            rate *= stride
            reach += (2 * stride + _UNIT_TAPS) / rate
        return math.ceil(reach + _EDGE_TAPS / rate)

    @property
    def sha256(self) -> str:
        from sonarc.codec.package import codec_sha256

        return codec_sha256(self)

    @property
    def encoder_sha256(self) -> str:
        from sonarc.codec.package import encoder_sha256

        return encoder_sha256(self)

    def frames(self, samples: int) -> int:
        return -(-samples // self.hop)

    @torch.no_grad()
    def encode(self, audio_BAS: Tensor) -> Tensor:
        if audio_BAS.ndim != 3 or audio_BAS.shape[1] != self.channels or audio_BAS.shape[2] == 0:
            raise ModelInputError(
                f"The codec takes audio of shape (batch, {self.channels}, samples), not {tuple(audio_BAS.shape)}.",
                "Give it that many channels and a batch dimension.",
            )
        audio = pad(audio_BAS.float(), (0, -audio_BAS.shape[-1] % self.hop))
        mean: Tensor = self.vae.encode(audio).latent_dist.mode()
        return mean

    def decode(self, z_BCT: Tensor) -> Tensor:
        self.check_latents(z_BCT)
        audio: Tensor = self.vae.decode(z_BCT.float()).sample
        return audio[..., : z_BCT.shape[-1] * self.hop]

    def check_latents(self, z_BCT: Tensor) -> None:
        """Refuse what this codec cannot decode.

        Raises:
            ModelInputError: another number of axes or channels, or no frame.
        """
        if z_BCT.ndim != 3 or z_BCT.shape[1] != self.latent_channels or z_BCT.shape[2] == 0:
            raise ModelInputError(
                f"The codec decodes latents of shape (batch, {self.latent_channels}, frames), "
                f"not {tuple(z_BCT.shape)}.",
                "Use latents of this codec.",
            )
