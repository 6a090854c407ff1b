"""Element-wise pieces of a block with their own backward passes: fewer passes over memory than autograd's.

On a CPU these pieces, not the matrix products, are half of a training step.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, joined: Tensor) -> Tensor:
        value, gate = joined.chunk(2, dim=-1)
        ctx.save_for_backward(joined)
        return F.silu(gate).mul_(value)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (grad,) = grads
        (joined,) = ctx.saved_tensors
        value, gate = joined.chunk(2, dim=-1)
        out = torch.empty_like(joined)
        out_value, out_gate = out.chunk(2, dim=-1)
        torch.mul(grad, F.silu(gate), out=out_value)
        out_gate.copy_(torch.ops.aten.silu_backward(grad * value, gate))
        return out


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_BNHK: Tensor, cos_NR: Tensor, sin_NR: Tensor) -> Tensor:
        ctx.save_for_backward(cos_NR, sin_NR)
        return _rotated(x_BNHK, cos_NR, sin_NR)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        cos_NR, sin_NR = ctx.saved_tensors
        return _rotated(grads[0], cos_NR, -sin_NR), None, None  # a rotation's transpose turns back


def _rotated(x_BNHK: Tensor, cos_NR: Tensor, sin_NR: Tensor) -> Tensor:
    half = cos_NR.shape[-1] // 2
    cos_N1R, sin_N1R = cos_NR[:, None, :half], sin_NR[:, None, :half]
    first, second = x_BNHK[..., :half].float(), x_BNHK[..., half : 2 * half].float()
    out = x_BNHK.clone(memory_format=torch.contiguous_format)
    out[..., :half] = first * cos_N1R - second * sin_N1R
    out[..., half : 2 * half] = second * cos_N1R + first * sin_N1R
    return out


def _rotated_parts(x_BNHK: Tensor, cos_NR: Tensor, sin_NR: Tensor) -> Tensor:
    """`_rotated` of parts laid side by side: a tracer does not see what is written into slices."""
    half = cos_NR.shape[-1] // 2
    cos_N1R, sin_N1R = cos_NR[:, None, :half], sin_NR[:, None, :half]
    first, second, rest = x_BNHK[..., :half], x_BNHK[..., half : 2 * half], x_BNHK[..., 2 * half :]
    return torch.cat([first * cos_N1R - second * sin_N1R, second * cos_N1R + first * sin_N1R, rest], dim=-1)


def swiglu(joined: Tensor) -> Tensor:
    """`value · SiLU(gate)` of the two halves of the last axis."""
    out: Tensor = _SwiGLU.apply(joined)  # type: ignore[no-untyped-call]
    return out


def rotate(x_BNHK: Tensor, cos_NR: Tensor, sin_NR: Tensor) -> Tensor:
    """Rotate the first R channels of every head by its position's angle, in float32; the others pass.

    Half-rotation layout: channel i turns with channel i + R/2.
    """
    if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        return _rotated_parts(x_BNHK, cos_NR, sin_NR)
    out: Tensor = _Rotate.apply(x_BNHK, cos_NR, sin_NR)  # type: ignore[no-untyped-call]
    return out
