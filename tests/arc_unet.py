"""A small 1-D U-Net as velocity model: convolutions, skip connections, and the feature tap that ARC asks for."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sonarc.dit import Conditioning

LEVELS = 8
"""Features of the noise level."""


class _Level(nn.Module):
    """Two convolutions, steered by noise level and text."""

    def __init__(self, before: int, width: int, steer: int) -> None:
        super().__init__()
        self.first = nn.Conv1d(before, width, 3, padding=1)
        self.second = nn.Conv1d(width, width, 3, padding=1)
        self.steer = nn.Linear(steer, 2 * width)

    def forward(self, h_BDN: Tensor, steer_BE: Tensor) -> Tensor:
        scale_BD1, shift_BD1 = self.steer(steer_BE)[..., None].chunk(2, dim=1)
        h_BDN = F.silu(self.first(h_BDN) * (1 + scale_BD1) + shift_BD1)
        return F.silu(self.second(h_BDN)) + h_BDN


class UNet1d(nn.Module):
    """Three levels down, three up; the features are the way down."""

    def __init__(self, channels: int, text: int, width: int = 48) -> None:
        super().__init__()
        steer = LEVELS + text
        self.feature_width = width
        self.down = nn.ModuleList(_Level(width if i else channels, width, steer) for i in range(3))
        self.up = nn.ModuleList(_Level(2 * width, width, steer) for _ in range(2))
        self.write = nn.Conv1d(width, channels, 1)

    def _descend(self, x_BCT: Tensor, t_B: Tensor, cond: Conditioning, depth: int) -> tuple[list[Tensor], Tensor]:
        steer_BE = torch.cat([torch.cos(torch.pi * t_B[:, None] * torch.arange(LEVELS)), cond.text.pooled()], dim=1)
        levels, h_BDN = [], x_BCT
        for number, level in enumerate(self.down[:depth]):
            h_BDN = level(F.avg_pool1d(h_BDN, 2) if number else h_BDN, steer_BE)
            levels.append(h_BDN)
        return levels, steer_BE

    def tokens(self, frames: int, *, depth: int) -> int:
        return frames // 2 ** (depth - 1)

    def features(
        self, x_BCT: Tensor, t_B: Tensor, cond: Conditioning, *, depth: int, mask_BT: Tensor | None = None
    ) -> Tensor:
        return self._descend(x_BCT, t_B, cond, depth)[0][-1].mT

    def forward(self, x_BCT: Tensor, t_B: Tensor, cond: Conditioning, *, mask_BT: Tensor | None = None) -> Tensor:
        (*skips, h_BDN), steer_BE = self._descend(x_BCT, t_B, cond, len(self.down))
        for level, skip_BDN in zip(self.up, reversed(skips), strict=True):
            h_BDN = level(torch.cat([F.interpolate(h_BDN, scale_factor=2), skip_BDN], dim=1), steer_BE)
        out_BCT: Tensor = self.write(h_BDN)
        return out_BCT.to(x_BCT.dtype)

    def trunk(self, depth: int) -> UNet1d:
        cut = copy.deepcopy(self)
        del cut.down[depth:], cut.up, cut.write
        return cut
