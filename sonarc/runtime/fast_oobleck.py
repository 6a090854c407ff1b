"""The decoder of Stable Audio Open's autoencoder for generation alone.

The same network as diffusers' `OobleckDecoder`, in bfloat16: weight norm folded, convolutions packed
(`sonarc.runtime.packed`), Snake in one pass (`sonarc.runtime.snake`). A transposed convolution of stride s and kernel
2s is a matrix product of two neighbouring samples that gives s new ones. On a CPU every block is computed in portions
that stay in the processor's caches, each with as much to its sides as its convolutions reach: the result is that of the
whole, which is what a GPU computes at once.

Shapes: B batch, A audio channels, S samples at a block's rate, C channels, T latent frames.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from sonarc.codec.oobleck import OobleckCodec
from sonarc.runtime.decoding import OtherDecoding
from sonarc.runtime.packed import PackedConv, PackedLinear
from sonarc.runtime.snake import Kernel, Snake, snake_kernel

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_oobleck import (
        OobleckDecoder,
        OobleckDecoderBlock,
        OobleckResidualUnit,
        Snake1d,
    )

PORTION = 32_768
"""Samples computed at once: 8 MB of 128 channels. A quarter of it takes a fifth longer on two threads, which then wait
for each other more often; a whole clip takes a third longer, because it leaves the caches."""


class FastOobleck(OtherDecoding):
    """A `Codec` that decodes as another one, only faster and in bfloat16."""

    def __init__(self, codec: OobleckCodec) -> None:
        super().__init__(codec)
        self._check = codec.check_latents
        self._decoder = _Decoder(codec.vae.decoder, self.device)

    @torch.inference_mode()
    def decode(self, z_BCT: Tensor) -> Tensor:
        """Audio `(B, A, T · hop)`, float32, without a graph. Errors as of the codec's own `decode`."""
        self._check(z_BCT)
        audio_BAS = torch.stack([self._decoder(z_CT.T.to(torch.bfloat16).contiguous()) for z_CT in z_BCT])
        return audio_BAS[..., : z_BCT.shape[-1] * self.hop]


class _Decoder:
    def __init__(self, decoder: OobleckDecoder, device: torch.device) -> None:
        kernel = snake_kernel(device)
        self._first = PackedConv(_weight(decoder.conv1), decoder.conv1.bias, padding=3)
        self._blocks = [_Block(block, kernel) for block in decoder.block]
        self._snake, self._last = _snake(decoder.snake1, kernel), PackedConv(_weight(decoder.conv2), padding=3)

    def __call__(self, z_TC: Tensor) -> Tensor:
        x_SC = self._first(z_TC)
        for block in self._blocks:
            x_SC = block(x_SC)
        out_SA = torch.cat([self._end(x_SC, *span) for span in _portions(x_SC, PORTION)])
        return out_SA.T.float()

    def _end(self, x_SC: Tensor, begin: int, end: int) -> Tensor:
        first, last = max(0, begin - 3), min(len(x_SC), end + 3)
        return self._last(self._snake(x_SC[first:last]))[begin - first : end - first]


class _Block:
    """Samples of one rate to those of the next: Snake, transposed convolution, three residual units."""

    def __init__(self, block: OobleckDecoderBlock, kernel: Kernel) -> None:
        up = block.conv_t1
        (self._stride,), (self._cut,) = up.stride, up.padding
        now_ICs, before_ICs = _weight(up).chunk(2, dim=2)
        weight_sCI2 = torch.stack([before_ICs.permute(2, 1, 0), now_ICs.permute(2, 1, 0)], -1)
        self._width = up.out_channels
        self._up = PackedConv(weight_sCI2.flatten(0, 1), up.bias.repeat(self._stride), padding=1)
        self._snake = _snake(block.snake1, kernel)
        self._units = [_Unit(unit, kernel) for unit in (block.res_unit1, block.res_unit2, block.res_unit3)]
        reach = sum(unit.reach for unit in self._units)
        self._aside = math.ceil((reach + self._cut) / self._stride) + 1

    def __call__(self, x_SC: Tensor) -> Tensor:
        stride = self._stride
        out_SC = x_SC.new_empty(len(x_SC) * stride, self._width)
        for begin, end in _portions(x_SC, max(1, PORTION // stride)):
            first, last = max(0, begin - self._aside), min(len(x_SC), end + self._aside)
            more_SC = self._up(self._snake(x_SC[first:last])).reshape(-1, self._width)
            y_SC = more_SC[self._cut : self._cut + (last - first) * stride]
            for unit in self._units:
                y_SC = unit(y_SC)
            out_SC[begin * stride : end * stride] = y_SC[(begin - first) * stride : (end - first) * stride]
        return out_SC


class _Unit:
    """`x + conv₁(snake(conv₇(snake(x))))`. Beyond a portion's ends lie zeros: right only at the ends of the whole.

    Attributes:
        reach: samples to either side that the result depends on.
    """

    def __init__(self, unit: OobleckResidualUnit, kernel: Kernel) -> None:
        (dilation,) = unit.conv1.dilation
        self.reach = 3 * dilation
        self._before, self._between = _snake(unit.snake1, kernel), _snake(unit.snake2, kernel)
        self._wide = PackedConv(_weight(unit.conv1), unit.conv1.bias, dilation=dilation, padding=self.reach)
        self._mix = PackedLinear(_weight(unit.conv2)[:, :, 0], unit.conv2.bias)

    def __call__(self, x_SC: Tensor) -> Tensor:
        return self._mix.with_other(self._between(self._wide(self._before(x_SC))), x_SC, "add")


def _snake(activation: Snake1d, kernel: Kernel) -> Snake:
    return Snake(activation.alpha, activation.beta, kernel, logarithmic=activation.logscale)


def _portions(x_SC: Tensor, size: int) -> Iterable[tuple[int, int]]:
    samples = len(x_SC)
    step = size if x_SC.device.type == "cpu" else samples
    return ((begin, min(begin + step, samples)) for begin in range(0, samples, step))


def _weight(conv: nn.Conv1d | nn.ConvTranspose1d) -> Tensor:
    """The weight of which weight norm keeps direction and length apart."""
    parts = dict(conv.named_parameters(recurse=False))
    direction, length = parts["weight_v"].detach(), parts["weight_g"].detach()
    weight: Tensor = direction * (length / torch.linalg.vector_norm(direction, dim=(1, 2), keepdim=True))
    return weight
