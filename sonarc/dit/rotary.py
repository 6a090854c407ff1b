"""Rotary position embedding on the first part of each head (RoFormer, arXiv 2104.09864; partial as in GPT-J)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

BASE = 10_000.0


class RotaryEmbedding(nn.Module):
    """Angles of `width` rotated channels: half-rotation layout, angles computed in float32."""

    inv_freq: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("inv_freq", BASE ** -(torch.arange(0, width, 2, dtype=torch.float32) / width))

    def forward(self, length: int) -> tuple[Tensor, Tensor]:
        """cos and sin of the angles at positions 0 … length−1, each `(length, width)`."""
        positions = torch.arange(length, device=self.inv_freq.device, dtype=torch.float32)
        angles = torch.outer(positions, self.inv_freq.float()).repeat(1, 2)
        return angles.cos(), angles.sin()
