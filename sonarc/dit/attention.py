"""Self- and cross-attention with normalised queries and keys.

Shapes: B batch, N query tokens, M key tokens, D width, H heads, K width of a head.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sonarc.dit.fused import rotate

QK_NORM_EPS = 1e-6
EXPLICIT_KEYS = 192
"""Up to so many keys, explicit softmax attention trains faster on a CPU than SDPA, whose backward is slow there."""


def attend(q_BHNK: Tensor, k_BHMK: Tensor, v_BHMK: Tensor, bias_B11M: Tensor | None) -> Tensor:
    """`softmax(q·kᵀ/√K + bias)·v`."""
    short_on_cpu = q_BHNK.device.type == "cpu" and k_BHMK.shape[2] <= EXPLICIT_KEYS
    if not (short_on_cpu and q_BHNK.requires_grad):
        bias = None if bias_B11M is None else bias_B11M.to(q_BHNK.dtype)
        return F.scaled_dot_product_attention(q_BHNK, k_BHMK, v_BHMK, attn_mask=bias)
    scores_BHNM = (q_BHNK * (1 / math.sqrt(q_BHNK.shape[-1]))) @ k_BHMK.transpose(-1, -2)
    if bias_B11M is not None:
        scores_BHNM = scores_BHNM + bias_B11M.to(scores_BHNM.dtype)
    return scores_BHNM.softmax(-1) @ v_BHMK


class SelfAttention(nn.Module):
    """Fused q, k, v; q and k layer-normed per head, then partly rotated."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_qkv = nn.Linear(width, 3 * width, bias=False)
        self.to_out = nn.Linear(width, width, bias=False)
        self.q_norm = nn.LayerNorm(width // heads, eps=QK_NORM_EPS)
        self.k_norm = nn.LayerNorm(width // heads, eps=QK_NORM_EPS)

    def forward(self, h_BND: Tensor, rotary: tuple[Tensor, Tensor], bias_B11N: Tensor | None) -> Tensor:
        """Attended states; `bias_B11N` is −inf at tokens that are not to be attended to."""
        q_BNHK, k_BNHK, v_BNHK = self.to_qkv(h_BND).unflatten(-1, (3, self.heads, -1)).unbind(2)
        q_BNHK = rotate(self.q_norm(q_BNHK), *rotary)
        k_BNHK = rotate(self.k_norm(k_BNHK), *rotary)
        out_BHNK = attend(q_BNHK.transpose(1, 2), k_BNHK.transpose(1, 2), v_BNHK.transpose(1, 2), bias_B11N)
        out: Tensor = self.to_out(out_BHNK.transpose(1, 2).flatten(2))
        return out


class CrossAttention(nn.Module):
    """Reads the conditioning sequence; no positions, no mask: padding is zeros, as published."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_kv = nn.Linear(width, 2 * width, bias=False)
        self.to_out = nn.Linear(width, width, bias=False)
        self.q_norm = nn.LayerNorm(width // heads, eps=QK_NORM_EPS)
        self.k_norm = nn.LayerNorm(width // heads, eps=QK_NORM_EPS)

    def forward(self, h_BND: Tensor, context_BMD: Tensor) -> Tensor:
        """Attended states."""
        q_BNHK = self.q_norm(self.to_q(h_BND).unflatten(-1, (self.heads, -1)))
        k_BMHK, v_BMHK = self.to_kv(context_BMD).unflatten(-1, (2, self.heads, -1)).unbind(2)
        k_BMHK = self.k_norm(k_BMHK)
        out_BHNK = attend(q_BNHK.transpose(1, 2), k_BMHK.transpose(1, 2), v_BMHK.transpose(1, 2), None)
        out: Tensor = self.to_out(out_BHNK.transpose(1, 2).flatten(2))
        return out


def padding_bias(mask_BN: Tensor) -> Tensor:
    """Additive attention bias `(B, 1, 1, N)`: 0 at true tokens, −inf at padding."""
    bias_BN = torch.zeros(mask_BN.shape, device=mask_BN.device).masked_fill(~mask_BN, -math.inf)
    return bias_BN[:, None, None, :]
