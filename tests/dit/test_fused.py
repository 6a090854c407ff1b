"""The hand-written backward passes equal autograd's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sonarc.dit.fused import rotate, swiglu
from sonarc.dit.rotary import RotaryEmbedding


def plain_swiglu(joined: torch.Tensor) -> torch.Tensor:
    value, gate = joined.chunk(2, dim=-1)
    return value * F.silu(gate)


def plain_rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    turned, kept = x[..., : cos.shape[-1]], x[..., cos.shape[-1] :]
    first, second = turned.chunk(2, dim=-1)
    turned = turned * cos[:, None] + torch.cat((-second, first), dim=-1) * sin[:, None]
    return torch.cat((turned, kept), dim=-1)


def gradient(function, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:  # type: ignore[no-untyped-def]
    x = x.clone().requires_grad_()
    (function(x) * weight).sum().backward()
    assert x.grad is not None
    return x.grad


def test_swiglu() -> None:
    x, weight = torch.randn(3, 5, 16), torch.randn(3, 5, 8)
    assert torch.allclose(swiglu(x), plain_swiglu(x), atol=1e-6)
    assert torch.allclose(gradient(swiglu, x, weight), gradient(plain_swiglu, x, weight), atol=1e-5)


@pytest.mark.parametrize("rotated", [8, 16])
def test_rotation(rotated: int) -> None:
    cos, sin = RotaryEmbedding(rotated)(7)
    x, weight = torch.randn(2, 7, 3, 16), torch.randn(2, 7, 3, 16)
    ours, plain = (lambda x: rotate(x, cos, sin)), (lambda x: plain_rotate(x, cos, sin))
    assert torch.allclose(ours(x), plain(x), atol=1e-6)
    assert torch.allclose(gradient(ours, x, weight), gradient(plain, x, weight), atol=1e-6)
    assert torch.allclose(ours(x).norm(dim=-1), x.norm(dim=-1), atol=1e-5), "a rotation keeps lengths"


def test_scores_depend_on_the_distance_only() -> None:
    cos, sin = RotaryEmbedding(16)(9)
    q, k = torch.randn(16), torch.randn(16)
    turned_q, turned_k = (rotate(x.expand(1, 9, 1, 16), cos, sin)[0, :, 0] for x in (q, k))
    scores = turned_q @ turned_k.T
    for distance in range(-8, 9):
        assert scores.diagonal(distance).std(unbiased=False) < 1e-4
