"""The DiT's fast form gives the network's velocities, whatever is asked, within bfloat16's rounding."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sonarc.contracts.config import DiTConfig
from sonarc.contracts.errors import ModelInputError
from sonarc.dit import Conditioning, DiT
from sonarc.runtime import packed
from sonarc.runtime.fast_dit import FastDiT
from sonarc.samplers import sample_base
from sonarc.text import TextStates

SHAPES = {
    "adaln": DiTConfig(latent_channels=4, width=64, depth=3, heads=2, patch=2, cond_width=16),
    "prepend": DiTConfig(latent_channels=4, width=64, depth=3, heads=1, patch=1, cond_width=24, global_cond="prepend"),
}
TEXT_WIDTH = 24
ROUNDING = 0.02
"""Relative error of bfloat16 after three blocks; autocast's own is as large."""


@pytest.fixture(params=sorted(SHAPES))
def model(request: pytest.FixtureRequest) -> DiT:
    """A model whose weights have all been moved, so that every part matters."""
    torch.manual_seed(0)
    model = DiT(SHAPES[request.param], TEXT_WIDTH).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def asked(model: DiT, batch: int = 3, frames: int = 12, seed: int = 7) -> tuple[Tensor, Tensor, Conditioning]:
    generator = torch.Generator().manual_seed(seed)
    x_BCT = torch.randn(batch, model.config.latent_channels, frames, generator=generator)
    mask_BL = torch.arange(6) < torch.randint(1, 7, (batch, 1), generator=generator)
    states_BLE = torch.randn(batch, 6, TEXT_WIDTH, generator=generator) * mask_BL[..., None]
    seconds_B = torch.rand(batch, generator=generator) * 10
    return x_BCT, torch.rand(batch, generator=generator), Conditioning(TextStates(states_BLE, mask_BL), seconds_B)


def error(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("padded", [False, True])
def test_its_velocities_are_the_networks(model: DiT, padded: bool) -> None:
    x_BCT, t_B, cond = asked(model)
    mask_BT = torch.arange(12) < torch.tensor([[12], [8], [4]]) if padded else None
    wanted = model(x_BCT, t_B, cond, mask_BT=mask_BT)
    found = FastDiT(model)(x_BCT, t_B, cond, mask_BT=mask_BT)
    true = slice(None) if mask_BT is None else mask_BT[:, None].expand_as(wanted)
    assert found.shape == wanted.shape and found.dtype == wanted.dtype
    assert error(found[true], wanted[true]) < ROUNDING


def test_a_request_is_never_taken_for_another(model: DiT) -> None:
    fast = FastDiT(model)
    for batch, frames, seed in ((3, 12, 1), (3, 12, 2), (1, 8, 2), (3, 12, 1)):
        x_BCT, t_B, cond = asked(model, batch, frames, seed)
        for t in (t_B, t_B / 2):
            assert error(fast(x_BCT, t, cond), model(x_BCT, t, cond)) < ROUNDING
    x_BCT, t_B, cond = asked(model)
    whole, part = torch.ones(3, 12, dtype=torch.bool), torch.arange(12) < torch.tensor([[12], [8], [4]])
    fast(x_BCT, t_B, cond, mask_BT=whole)
    wanted, found = (m(x_BCT, t_B, cond, mask_BT=part)[2, :, :4] for m in (model, fast))
    assert error(found, wanted) < ROUNDING


def test_longer_latents_under_the_same_conditioning(model: DiT) -> None:
    fast = FastDiT(model)
    _, t_B, cond = asked(model)
    for frames in (8, 16):
        x_BCT = torch.randn(3, 4, frames, generator=torch.Generator().manual_seed(frames))
        assert error(fast(x_BCT, t_B, cond), model(x_BCT, t_B, cond)) < ROUNDING


def test_guidance_goes_through_it(model: DiT) -> None:
    _, _, cond = asked(model)
    mask_BT = torch.ones(3, 12, dtype=torch.bool)
    fast = FastDiT(model)
    wanted, found = (sample_base(m, cond, [0, 1, 2], mask_BT, steps=4, cfg=2.0, channels=4) for m in (model, fast))
    assert error(found, wanted) < 3 * ROUNDING


def test_without_onednn_it_is_the_same(model: DiT, monkeypatch: pytest.MonkeyPatch) -> None:
    x_BCT, t_B, cond = asked(model)
    monkeypatch.setattr(packed, "can_pack", lambda: False)
    assert error(FastDiT(model)(x_BCT, t_B, cond), model(x_BCT, t_B, cond)) < ROUNDING


def test_what_the_network_refuses_it_refuses(model: DiT) -> None:
    x_BCT, t_B, cond = asked(model)
    with pytest.raises(ModelInputError, match="noise levels"):
        FastDiT(model)(x_BCT, t_B[:2], cond)
