"""The three networks as ONNX takes them: one clip at a time, real numbers only.

Shapes: B = 1 clip, L tokens of a prompt, E width of their states, C latent channels, T latent frames, A audio
channels, S samples.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sonarc.codec.spectral import SpectralCodec
from sonarc.codec.stft import mid_side
from sonarc.dit import Conditioning, DiT
from sonarc.edge.inverse import RealInverse
from sonarc.text.encoder import TextStates
from sonarc.text.minilm import MiniLMModel


class TextGraph(nn.Module):
    """Token ids to states; a prompt comes alone, so that every token is its own."""

    def __init__(self, model: MiniLMModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids_BL: Tensor) -> Tensor:
        """States `(1, L, E)` of ids `(1, L)`."""
        states_BLE: Tensor = self.model(ids_BL, torch.ones_like(ids_BL, dtype=torch.bool))
        return states_BLE


class StepGraph(nn.Module):
    """One evaluation of the DiT."""

    def __init__(self, model: DiT) -> None:
        super().__init__()
        self.model = model

    def forward(self, x_BCT: Tensor, t_B: Tensor, text_BLE: Tensor, mask_BL: Tensor, seconds_B: Tensor) -> Tensor:
        """Velocity `(1, C, T)`; the text is padded to the encoder's length, `mask_BL` True at its own tokens."""
        velocity_BCT: Tensor = self.model(x_BCT, t_B, Conditioning(TextStates(text_BLE, mask_BL), seconds_B))
        return velocity_BCT


class DecoderGraph(nn.Module):
    """Standardised latents of a whole clip to its audio, in float32.

    Args:
        codec: the codec whose decoder it is.
        frames: latent frames T of a clip.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, codec: SpectralCodec, frames: int) -> None:
        super().__init__()
        c = codec.config
        self.decoder = codec.decoder
        self.inverse = RealInverse(c.n_fft, c.stft_hop, frames * codec.hop // c.stft_hop)
        self.register_buffer("mean", codec.latent_mean)
        self.register_buffer("std", codec.latent_std)

    def forward(self, z_BCT: Tensor) -> Tensor:
        """Audio `(1, A, S)`."""
        spectrum = self.decoder(z_BCT * self.std + self.mean)
        magnitude = spectrum.log_magnitude.exp()
        return mid_side(self.inverse(magnitude * spectrum.cos, magnitude * spectrum.sin))


class RowwiseEmbedding(nn.Module):
    """An embedding in int8, each row with its own scale: a quarter of the bytes, within 0.4 % of a row's peak."""

    rows: Tensor
    scale: Tensor

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        scale_V1 = embedding.weight.abs().amax(1, keepdim=True).clamp(min=1e-12) / 127
        self.register_buffer("rows", (embedding.weight / scale_V1).round().to(torch.int8))
        self.register_buffer("scale", scale_V1)

    def forward(self, ids_BL: Tensor) -> Tensor:
        """States `(B, L, E)`."""
        return self.rows[ids_BL].float() * self.scale[ids_BL]
