"""ConvNeXt blocks over time, laid out for CPU.

Tensors stay `(B, T, D)`: pointwise layers are plain matrix products and the depthwise convolution sees the
same memory as a channels-last image of height one, which is the fast path of oneDNN in bfloat16.

Source: Liu et al., A ConvNet for the 2020s (2022); one-dimensional as in Vocos (Siuzdak, 2023).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, gelu, layer_norm


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution, layer norm, two pointwise layers, scaled residual.

    Args:
        dim: width D.
        expansion: hidden width of the pointwise layers over D.
        kernel: odd length of the depthwise convolution in frames.
        dilation: spacing of its taps in frames.
        scale: initial value of the residual scale, about 1 / (number of blocks).
    """

    def __init__(self, dim: int, expansion: int, kernel: int, dilation: int, scale: float) -> None:
        super().__init__()
        self.dim, self.kernel, self.dilation = dim, kernel, dilation
        self.depthwise = nn.Parameter(torch.randn(dim, 1, 1, kernel) * kernel**-0.5)
        self.depthwise_bias = nn.Parameter(torch.zeros(dim))
        self.norm = nn.LayerNorm(dim)
        self.up = nn.Linear(dim, dim * expansion)
        self.down = nn.Linear(dim * expansion, dim)
        self.scale = nn.Parameter(torch.full((dim,), scale))
        nn.init.normal_(self.up.weight, std=0.02)
        nn.init.normal_(self.down.weight, std=0.02)
        nn.init.zeros_(self.up.bias)
        nn.init.zeros_(self.down.bias)

    def forward(self, x_BTD: Tensor) -> Tensor:
        x_BD1T = x_BTD.transpose(1, 2).unsqueeze(2)
        h = conv2d(
            x_BD1T,
            self.depthwise,
            self.depthwise_bias,
            padding=(0, self.dilation * (self.kernel // 2)),
            dilation=(1, self.dilation),
            groups=self.dim,
        )
        h = h.squeeze(2).transpose(1, 2)
        h = layer_norm(h, (self.dim,), self.norm.weight, self.norm.bias)
        h = self.down(gelu(self.up(h)))  # the exact one: the tanh form is twenty times slower in bfloat16 on CPU
        y_BTD: Tensor = x_BTD + self.scale * h
        return y_BTD
