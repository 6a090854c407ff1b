"""The transformer of the DiT: pre-norm blocks of self-attention, cross-attention and a gated feed-forward.

Shapes: B batch, N tokens, M conditioning tokens, D width.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sonarc.dit.attention import CrossAttention, SelfAttention
from sonarc.dit.fused import swiglu
from sonarc.dit.rotary import RotaryEmbedding

LAYER_NORM_EPS = 1e-5
MIN_ROTARY = 32
"""Fewest rotated channels of a head, where the head has as many."""

GlobalCond = Literal["prepend", "adaln"]


class LayerNorm(nn.Module):
    """Layer norm with a learned gain and a fixed zero shift (a buffer, as published)."""

    beta: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.gamma = nn.Parameter(torch.ones(width))
        self.register_buffer("beta", torch.zeros(width))

    def forward(self, h: Tensor) -> Tensor:
        return F.layer_norm(h, (self.width,), self.gamma.to(h.dtype), self.beta.to(h.dtype), LAYER_NORM_EPS)


class _GLU(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 2 * hidden)

    def forward(self, h: Tensor) -> Tensor:
        return swiglu(self.proj(h))


class FeedForward(nn.Module):
    """Gated feed-forward: `W₂(value · SiLU(gate))`."""

    def __init__(self, width: int, mult: int, *, zero_init: bool) -> None:
        super().__init__()
        hidden = width * mult
        last = nn.Linear(hidden, width)
        if zero_init:
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
        self.ff = nn.Sequential(_GLU(width, hidden), nn.Identity(), last)

    def forward(self, h: Tensor) -> Tensor:
        out: Tensor = self.ff(h)
        return out

    def linears(self) -> tuple[nn.Linear, nn.Linear]:
        """The layer that gives values and gates, and W₂."""
        glu, _, last = self.ff
        assert isinstance(glu, _GLU) and isinstance(last, nn.Linear)
        return glu.proj, last


class Modulation(nn.Module):
    """AdaLN-Zero (DiT, arXiv 2212.09748): the global condition → `parts` vectors of the width, all zero at first."""

    def __init__(self, width: int, parts: int) -> None:
        super().__init__()
        self.parts = parts
        self.linear = nn.Linear(width, parts * width)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, global_BD: Tensor) -> tuple[Tensor, ...]:
        """`parts` tensors `(B, 1, D)`."""
        out_BD: Tensor = self.linear(F.silu(global_BD))
        return out_BD[:, None].chunk(self.parts, dim=-1)


class Block(nn.Module):
    """Self-attention, cross-attention and feed-forward, each on a residual branch that starts at zero."""

    def __init__(self, width: int, heads: int, ff_mult: int, global_cond: GlobalCond) -> None:
        super().__init__()
        self.pre_norm = LayerNorm(width)
        self.self_attn = SelfAttention(width, heads)
        self.cross_attend_norm = LayerNorm(width)
        self.cross_attn = CrossAttention(width, heads)
        self.ff_norm = LayerNorm(width)
        self.ff = FeedForward(width, ff_mult, zero_init=global_cond == "prepend")
        self.modulation = Modulation(width, 6) if global_cond == "adaln" else None
        nn.init.zeros_(self.cross_attn.to_out.weight)
        if self.modulation is None:
            nn.init.zeros_(self.self_attn.to_out.weight)

    def forward(
        self,
        h_BND: Tensor,
        context_BMD: Tensor,
        global_BD: Tensor,
        rotary: tuple[Tensor, Tensor],
        bias_B11N: Tensor | None,
    ) -> Tensor:
        if self.modulation is None:
            h_BND = h_BND + self.self_attn(self.pre_norm(h_BND), rotary, bias_B11N)
            h_BND = h_BND + self.cross_attn(self.cross_attend_norm(h_BND), context_BMD)
            h_BND = h_BND + self.ff(self.ff_norm(h_BND))
        else:
            shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = self.modulation(global_BD)
            normed_BND = modulate(self.pre_norm(h_BND), shift_a, scale_a)
            h_BND = torch.addcmul(h_BND, gate_a, self.self_attn(normed_BND, rotary, bias_B11N))
            h_BND = h_BND + self.cross_attn(self.cross_attend_norm(h_BND), context_BMD)
            h_BND = torch.addcmul(h_BND, gate_f, self.ff(modulate(self.ff_norm(h_BND), shift_f, scale_f)))
        return h_BND


def modulate(h_BND: Tensor, shift_B1D: Tensor, scale_B1D: Tensor) -> Tensor:
    """`h·(1 + scale) + shift`."""
    return torch.addcmul(shift_B1D, h_BND, 1 + scale_B1D)


class Transformer(nn.Module):
    """`depth` blocks between two bias-free projections; the last projection starts at zero."""

    def __init__(
        self, channels: int, width: int, depth: int, heads: int, ff_mult: int, global_cond: GlobalCond
    ) -> None:
        super().__init__()
        head = width // heads
        self.project_in = nn.Linear(channels, width, bias=False)
        self.rotary_pos_emb = RotaryEmbedding(min(head, max(head // 2, MIN_ROTARY)))
        self.layers = nn.ModuleList(Block(width, heads, ff_mult, global_cond) for _ in range(depth))
        self.project_out = nn.Linear(width, channels, bias=False)
        nn.init.zeros_(self.project_out.weight)
        # Published models have no last norm; with AdaLN the last states are normed and steered once more.
        self.final_norm = LayerNorm(width) if global_cond == "adaln" else None
        self.final_modulation = Modulation(width, 2) if global_cond == "adaln" else None

    def run(
        self,
        h_BND: Tensor,
        context_BMD: Tensor,
        global_BD: Tensor,
        bias_B11N: Tensor | None,
        *,
        depth: int,
        recompute: bool,
    ) -> Tensor:
        """States after the first `depth` blocks; `recompute` trades time for memory in the backward pass."""
        rotary = self.rotary_pos_emb(h_BND.shape[1])
        for block in self.layers[:depth]:
            if recompute and torch.is_grad_enabled():
                h_BND = checkpoint(block, h_BND, context_BMD, global_BD, rotary, bias_B11N, use_reentrant=False)
            else:
                h_BND = block(h_BND, context_BMD, global_BD, rotary, bias_B11N)
        return h_BND

    def out(self, h_BND: Tensor, global_BD: Tensor) -> Tensor:
        """The last projection `(B, N, channels)`."""
        if self.final_norm is not None and self.final_modulation is not None:
            h_BND = modulate(self.final_norm(h_BND), *self.final_modulation(global_BD))
        projected: Tensor = self.project_out(h_BND)
        return projected
