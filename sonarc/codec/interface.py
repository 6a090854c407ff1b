"""What the rest of Sonarc knows of a codec.

Shapes: B batch, A audio channels, S audio samples, C latent channels, T latent frames.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class Codec(Protocol):
    """Audio to latents and back. Latents are standardised: each channel has mean 0 and deviation 1 in training."""

    @property
    def sample_rate(self) -> int:
        """Samples a second of the audio it takes and gives."""

    @property
    def channels(self) -> int:
        """Audio channels A."""

    @property
    def latent_channels(self) -> int:
        """Latent channels C."""

    @property
    def hop(self) -> int:
        """Audio samples per latent frame."""

    @property
    def reach(self) -> int:
        """Latent frames to either side that a decoded sample depends on, at most."""

    @property
    def sha256(self) -> str:
        """Hash of configuration and weights."""

    @property
    def encoder_sha256(self) -> str:
        """Hash of what latents depend on, and are bound to: configuration, encoder and their standardisation."""

    def frames(self, samples: int) -> int:
        """Latent frames T that hold `samples` audio samples, the last one padded."""

    def encode(self, audio_BAS: Tensor) -> Tensor:
        """Standardised latents `(B, C, T)` of audio in [-1, 1]; a length that is no multiple of `hop` is
        padded with silence. Deterministic: the posterior's mean."""

    def decode(self, z_BCT: Tensor) -> Tensor:
        """Audio `(B, A, T · hop)` of standardised latents, differentiable in them."""
