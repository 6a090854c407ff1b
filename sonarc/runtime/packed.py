"""Linear layers and convolutions for inference: bfloat16 weights, on a CPU laid out once for its matrix unit.

There a plain `F.linear` lays its weights out at every call, which for a few hundred tokens costs a third of the
product. What follows the product, an activation or a tensor to add or multiply, is done while the result is in a
register. On a GPU, and where oneDNN is absent, they are PyTorch's own products.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TYPICAL_ROWS = 256
"""Rows that the layout is chosen for; any number fits."""
TYPICAL_SAMPLES = 8_192
"""Likewise, samples that a convolution's layout is chosen for."""


def can_pack() -> bool:
    """Whether this machine's PyTorch has oneDNN's bfloat16 products, for weights on the CPU."""
    has_onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return bool(has_onednn and torch.ops.mkldnn._is_mkldnn_bf16_supported())


class PackedLinear:
    """`x·Wᵀ + b` in bfloat16.

    Args:
        weight_OI: as of `nn.Linear`, of any floating type.
        bias_O: likewise; None: none.
    """

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None = None) -> None:
        weight_OI = weight_OI.detach().to(torch.bfloat16).contiguous()
        self._packs = weight_OI.device.type == "cpu" and can_pack()
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight_OI, TYPICAL_ROWS) if self._packs else weight_OI
        self._bias = None if bias_O is None else bias_O.detach().to(torch.bfloat16)

    @classmethod
    def of(cls, linear: nn.Module) -> PackedLinear:
        """The packed form of an `nn.Linear`."""
        assert isinstance(linear, nn.Linear)
        return cls(linear.weight, linear.bias)

    def __call__(self, x: Tensor, activation: Literal["none", "swish"] = "none") -> Tensor:
        """`activation(x·Wᵀ + b)`; `x` is bfloat16, contiguous."""
        if self._packs:
            out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, activation, [], "")
            return out
        out = F.linear(x, self._weight, self._bias)
        return F.silu(out) if activation == "swish" else out

    def with_other(self, x: Tensor, other: Tensor, what: Literal["add", "mul"]) -> Tensor:
        """`(x·Wᵀ + b) + other`, or times it."""
        if self._packs:
            out: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, other, self._weight, self._bias, what)
            return out
        out = F.linear(x, self._weight, self._bias)
        return out + other if what == "add" else out * other


class PackedConv:
    """A convolution over time in bfloat16, of samples that lie one after the other, all channels of each together.

    In that order it is a two-dimensional convolution of height 1 over channels-last memory, which oneDNN has at the
    rate of a matrix product; PyTorch's one-dimensional ones reach a half to a sixth of it. cuDNN prefers it too.

    Args:
        weight_OIK: as of `nn.Conv1d`, of any floating type.
        bias_O: likewise; None: none.
        dilation: samples between two taps.
        padding: zeros before and after.
    """

    def __init__(
        self, weight_OIK: Tensor, bias_O: Tensor | None = None, *, dilation: int = 1, padding: int = 0
    ) -> None:
        channels = weight_OIK.shape[1]
        weight = weight_OIK.detach().to(torch.bfloat16)[:, :, None].contiguous(memory_format=torch.channels_last)
        self._padding, self._dilation = [0, padding], [1, dilation]
        self._packs = weight.device.type == "cpu" and can_pack()
        if self._packs:
            typical = [1, channels, 1, TYPICAL_SAMPLES]
            weight = torch.ops.mkldnn._reorder_convolution_weight(
                weight, self._padding, [1, 1], self._dilation, 1, typical
            )
        self._weight = weight
        self._bias = None if bias_O is None else bias_O.detach().to(torch.bfloat16)

    def __call__(self, x_SI: Tensor) -> Tensor:
        """`(S + 2·padding − dilation·(K − 1), O)` of bfloat16 samples `(S, I)`, contiguous."""
        x_BI1S = x_SI.T[None, :, None]
        if self._packs:
            out_BO1S = torch.ops.mkldnn._convolution_pointwise(
                x_BI1S, self._weight, self._bias, self._padding, [1, 1], self._dilation, 1, "none", [], ""
            )
        else:
            out_BO1S = F.conv2d(x_BI1S, self._weight, self._bias, 1, self._padding, self._dilation)
        out_SO: Tensor = out_BO1S[0, :, 0].T
        return out_SO.contiguous()
