"""Heads that turn the discriminator's features into scores along time.

Shapes: B batch, D feature width, N tokens, M score positions. Padding is kept at zero between the layers
and out of the statistics of the norms, so a clip's scores do not depend on how far its batch is padded.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sonarc.contracts.config import HeadConfig


def _true(x_BDN: Tensor, weight_BN: Tensor) -> Tensor:
    """`x` with padding set to zero."""
    return x_BDN * (weight_BN > 0)[:, None]


class MaskedGroupNorm(nn.GroupNorm):
    """Group norm whose statistics run over the true positions only; padding comes out as zero."""

    def __init__(self, channels: int) -> None:
        super().__init__(math.gcd(32, channels), channels)

    def forward(self, x_BDN: Tensor, weight_BN: Tensor) -> Tensor:  # type: ignore[override]
        x_BGEN = x_BDN.float().reshape(len(x_BDN), self.num_groups, -1, x_BDN.shape[2])
        weight_B11N = weight_BN[:, None, None].float()
        count_B111 = (weight_B11N.sum(-1, keepdim=True) * x_BGEN.shape[2]).clamp_min(1e-6)
        mean_BG11 = (x_BGEN * weight_B11N).sum((2, 3), keepdim=True) / count_B111
        centred_BGEN = x_BGEN - mean_BG11
        variance_BG11 = (centred_BGEN.square() * weight_B11N).sum((2, 3), keepdim=True) / count_B111
        y_BDN = (centred_BGEN * torch.rsqrt(variance_BG11 + self.eps)).flatten(1, 2)
        y_BDN = y_BDN * self.weight[:, None] + self.bias[:, None]
        return _true(y_BDN, weight_BN).to(x_BDN.dtype)


class ConvHead(nn.Module):
    """`stages` × [conv k4 s2, group norm, SiLU], then a convolution to one score (head "conv")."""

    def __init__(self, width: int, stages: int, kernel: int) -> None:
        super().__init__()
        self.kernel = kernel
        self.convs = nn.ModuleList(nn.Conv1d(width, width, 4, stride=2, padding=1) for _ in range(stages))
        self.norms = nn.ModuleList(MaskedGroupNorm(width) for _ in range(stages))
        self.score = nn.Conv1d(width, 1, kernel)

    def forward(self, h_BDN: Tensor, weight_BN: Tensor) -> tuple[Tensor, Tensor]:
        h_BDN = _true(h_BDN, weight_BN)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            weight_BN = F.avg_pool1d(weight_BN, 2)
            h_BDN = F.silu(norm(conv(h_BDN), weight_BN))
        return self.score(h_BDN)[:, 0], F.avg_pool1d(weight_BN, self.kernel, stride=1)

    def weights(self, weight_BN: Tensor) -> Tensor:
        for _ in self.convs:
            weight_BN = F.avg_pool1d(weight_BN, 2)
        return F.avg_pool1d(weight_BN, self.kernel, stride=1)


class ConvNeXtBlock(nn.Module):
    """Depthwise k7, layer norm, and a two-layer perceptron of 4 × the width, as a residual."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)
        self.scale = nn.Parameter(torch.full((width,), 1e-2))

    def forward(self, h_BDN: Tensor, weight_BN: Tensor) -> Tensor:
        update_BND = self.down(F.gelu(self.up(self.norm(self.depthwise(h_BDN).mT))))
        return _true(h_BDN + (self.scale * update_BND).mT, weight_BN)


class ConvNeXtHead(nn.Module):
    """Conv k7 to 128, three stages of 128, 256 and 512 channels (strides 1, 2, 2) of two blocks each, conv k3
    to one score (head "convnext")."""

    WIDTHS = (128, 256, 512)
    STRIDES = (1, 2, 2)

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = nn.Conv1d(width, self.WIDTHS[0], 7, padding=3)
        before = (self.WIDTHS[0], *self.WIDTHS[:-1])
        self.downs = nn.ModuleList(
            nn.Conv1d(narrow, wide, stride, stride=stride)
            for narrow, wide, stride in zip(before, self.WIDTHS, self.STRIDES, strict=True)
        )
        self.blocks = nn.ModuleList(nn.ModuleList(ConvNeXtBlock(width) for _ in range(2)) for width in self.WIDTHS)
        self.score = nn.Conv1d(self.WIDTHS[-1], 1, 3, padding=1)

    def forward(self, h_BDN: Tensor, weight_BN: Tensor) -> tuple[Tensor, Tensor]:
        h_BDN = _true(self.stem(_true(h_BDN, weight_BN)), weight_BN)
        for down, blocks, stride in zip(self.downs, self.blocks, self.STRIDES, strict=True):
            weight_BN = F.avg_pool1d(weight_BN, stride)
            h_BDN = _true(down(h_BDN), weight_BN)
            for block in blocks:  # type: ignore[attr-defined]
                h_BDN = block(h_BDN, weight_BN)
        return self.score(h_BDN)[:, 0], weight_BN

    def weights(self, weight_BN: Tensor) -> Tensor:
        for stride in self.STRIDES:
            weight_BN = F.avg_pool1d(weight_BN, stride)
        return weight_BN


def make_head(config: HeadConfig, width: int) -> nn.Module:
    """The configured head for features of `width` channels.

    Its forward takes features `(B, D, N)` and the tokens' validity `(B, N)` in [0, 1], and gives scores
    `(B, M)` and the positions' validity `(B, M)`: the share of true tokens under each. `weights` gives
    the latter alone.
    """
    if config.kind == "convnext":
        return ConvNeXtHead(width)
    return ConvHead(width, config.stages, config.kernel)
