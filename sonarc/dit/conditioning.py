"""What steers the DiT: text, duration and noise level, and their embeddings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sonarc.text.encoder import TextStates, concatenate


@dataclass(frozen=True)
class Conditioning:
    """What a batch of clips is asked to be.

    Attributes:
        text: the encoded prompts.
        seconds_B: true durations, seconds, float32.
    """

    text: TextStates
    seconds_B: Tensor

    def __len__(self) -> int:
        return len(self.text)

    def __getitem__(self, items: slice | Tensor) -> Conditioning:
        """The conditioning of some clips: a slice, integer positions or a boolean mask over B."""
        return Conditioning(self.text[items], self.seconds_B[items])

    def to(self, device: torch.device | str) -> Conditioning:
        """The same conditioning on another device."""
        return Conditioning(self.text.to(device), self.seconds_B.to(device))

    def null(self) -> Conditioning:
        """The same durations with the null text, for classifier-free guidance."""
        return Conditioning(self.text.null(), self.seconds_B)

    def with_text(self, text: TextStates) -> Conditioning:
        """The same durations with other prompts."""
        return Conditioning(text, self.seconds_B)


def concatenate_conditioning(parts: Sequence[Conditioning]) -> Conditioning:
    """Several batches of conditioning as one."""
    return Conditioning(concatenate([p.text for p in parts]), torch.cat([p.seconds_B for p in parts]))


class FourierFeatures(nn.Module):
    """Learned Fourier features of the noise level: `[cos 2πwt, sin 2πwt]`."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(features // 2, 1))

    def forward(self, t_B: Tensor) -> Tensor:
        """`(B, features)`, computed in float32."""
        angles_BF = 2 * math.pi * t_B.float()[:, None] * self.weight[:, 0].float()
        return torch.cat((angles_BF.cos(), angles_BF.sin()), dim=-1)


class _NumberFeatures(nn.Module):
    """A number and its learned Fourier features: `[x, sin 2πwx, cos 2πwx]`."""

    def __init__(self, frequencies: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.randn(frequencies))

    def forward(self, x_B: Tensor) -> Tensor:
        x_B1 = x_B.float()[:, None]
        angles_BF = 2 * math.pi * x_B1 * self.weights.float()
        return torch.cat((x_B1, angles_BF.sin(), angles_BF.cos()), dim=-1)


class _NumberEmbedder(nn.Module):
    def __init__(self, width: int, frequencies: int) -> None:
        super().__init__()
        self.embedding = nn.Sequential(_NumberFeatures(frequencies), nn.Linear(2 * frequencies + 1, width))


class DurationEmbedder(nn.Module):
    """Seconds → embedding: clamped to [0, max_seconds], divided by it, Fourier features, a linear layer."""

    def __init__(self, width: int, max_seconds: float, frequencies: int = 128) -> None:
        super().__init__()
        self.max_seconds = max_seconds
        self.embedder = _NumberEmbedder(width, frequencies)

    def forward(self, seconds_B: Tensor) -> Tensor:
        """`(B, width)`."""
        embedded: Tensor = self.embedder.embedding(seconds_B.clamp(0, self.max_seconds) / self.max_seconds)
        return embedded


class PromptProjection(nn.Module):
    """Text states brought to the conditioning width; padding stays zero."""

    def __init__(self, text_width: int, width: int) -> None:
        super().__init__()
        self.proj_out = nn.Linear(text_width, width) if text_width != width else nn.Identity()

    def forward(self, text: TextStates) -> TextStates:
        """States of the conditioning width."""
        return TextStates(self.proj_out(text.tokens_BLE) * text.mask_BL[..., None], text.mask_BL)
