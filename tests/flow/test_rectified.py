"""Rectified flow: its identities, the masked loss, and a flow with a known answer."""

from __future__ import annotations

import pytest
import torch

from sonarc.contracts.errors import ModelInputError
from sonarc.flow import clean_estimate, interpolate, velocity_loss, velocity_target


def clips(seed: int = 0, batch: int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x0, noise = (torch.randn(batch, 3, 8, generator=generator) for _ in range(2))
    return x0, noise, torch.rand(batch, generator=generator)


def test_the_ends_of_the_path_are_clip_and_noise() -> None:
    x0, noise, _ = clips()
    assert torch.equal(interpolate(x0, noise, torch.zeros(4)), x0)
    assert torch.equal(interpolate(x0, noise, torch.ones(4)), noise)


def test_the_true_velocity_gives_back_the_clip_from_anywhere() -> None:
    x0, noise, t_B = clips()
    x_t, v = interpolate(x0, noise, t_B), velocity_target(x0, noise)
    assert torch.allclose(clean_estimate(x_t, t_B, v), x0, atol=1e-6)


def test_the_velocity_is_the_paths_derivative() -> None:
    x0, noise, t_B = clips()
    x0, noise, t_B = x0.double(), noise.double(), t_B.double()
    slope = (interpolate(x0, noise, t_B + 1e-6) - interpolate(x0, noise, t_B - 1e-6)) / 2e-6
    assert torch.allclose(slope, velocity_target(x0, noise), atol=1e-6)


def test_the_loss_is_the_mean_over_true_frames_only() -> None:
    x0, noise, _ = clips()
    mask_BT = torch.arange(8) < torch.tensor([[8], [5], [1], [3]])
    target = velocity_target(x0, noise)
    expected = torch.cat([(t[:, m] - 1).square().mean(0) for t, m in zip(target, mask_BT, strict=True)]).mean()
    predicted = torch.ones_like(target)
    assert torch.allclose(velocity_loss(predicted, target, mask_BT), expected)
    predicted[~mask_BT[:, None].expand_as(predicted)] = 1e6
    assert torch.allclose(velocity_loss(predicted, target, mask_BT), expected)


def test_workers_losses_average_to_the_whole_batchs() -> None:
    x0, noise, _ = clips()
    mask_BT = torch.arange(8) < torch.tensor([[8], [5], [1], [3]])
    target, predicted = velocity_target(x0, noise), torch.zeros_like(x0)
    frames = float(mask_BT.sum())
    parts = [slice(0, 1), slice(1, 4)]
    losses = [velocity_loss(predicted[p], target[p], mask_BT[p], frames=frames / 2) for p in parts]
    assert torch.allclose(torch.stack(losses).mean(), velocity_loss(predicted, target, mask_BT))


def test_a_batch_without_true_frames_is_refused() -> None:
    x0, noise, _ = clips()
    with pytest.raises(ModelInputError, match="no true frame"):
        velocity_loss(x0, noise, torch.zeros(4, 8, dtype=torch.bool))
