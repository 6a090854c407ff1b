"""Modules whose weights are to be replaced are made without drawing, and only then."""

from __future__ import annotations

import torch
from torch import nn

from sonarc.undrawn import undrawn


def test_nothing_is_drawn_inside_and_everything_outside() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    with undrawn():
        made = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.Embedding(4, 8), nn.Conv1d(2, 2, 3))
        counted = torch.arange(3)
    assert torch.equal(torch.get_rng_state(), before)
    assert counted.tolist() == [0, 1, 2]
    assert [tuple(p.shape) for p in made.parameters()][:2] == [(8, 8), (8,)]
    assert nn.Linear(8, 8).weight.std() > 0
    assert not torch.equal(torch.get_rng_state(), before)
