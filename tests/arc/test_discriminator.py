"""The discriminator: copied from the base, blind to padding, refusing what is too short."""

from __future__ import annotations

import pytest
import torch

from sonarc.arc import Discriminator
from sonarc.arc.heads import MaskedGroupNorm, make_head
from sonarc.contracts import presets
from sonarc.contracts.config import HeadConfig
from sonarc.contracts.errors import ConfigError, ModelInputError
from sonarc.dit import DiT

HEADS = [HeadConfig(kind="conv", stages=2, kernel=3), HeadConfig(kind="convnext")]


def scores(discriminator: Discriminator, batch) -> tuple[torch.Tensor, torch.Tensor]:
    real = batch.real
    return discriminator(real.x0_BCT, torch.full((len(real),), 0.4), real.cond, mask_BT=real.mask_BT)


def test_its_trunk_starts_as_the_base_and_leaves_it_alone(dit: DiT, arc, discriminator, make_batch) -> None:
    real, t_B = make_batch().real, torch.full((4,), 0.4)
    arguments = (real.x0_BCT, t_B, real.cond)
    before = dit.features(*arguments, depth=1, mask_BT=real.mask_BT)
    torch.testing.assert_close(discriminator.trunk.features(*arguments, depth=1, mask_BT=real.mask_BT), before)
    with torch.no_grad():
        for parameter in discriminator.parameters():
            parameter.add_(1.0)
    assert torch.equal(dit.features(*arguments, depth=1, mask_BT=real.mask_BT), before)


def test_every_parameter_it_keeps_is_used(discriminator, make_batch) -> None:
    # Distributed training waits for ever for the gradient of a parameter that takes no part.
    scores(discriminator, make_batch())[0].sum().backward()
    assert [name for name, p in discriminator.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("head", HEADS)
def test_scores_do_not_depend_on_how_far_a_clip_is_padded(dit: DiT, head: HeadConfig, make_batch) -> None:
    torch.manual_seed(0)
    discriminator = Discriminator(dit, 1, head)
    short = make_batch([24, 24], length=24)
    padded = make_batch([24, 24], length=32)
    padded.real.x0_BCT[:, :, 24:] = 100.0
    (alone, weight), (among, weight_padded) = scores(discriminator, short), scores(discriminator, padded)
    whole = weight[0] > 0.99
    count = int(whole.sum())
    # Text states and noise of the two batches are the same: only the padding differs.
    torch.testing.assert_close(among[:, :count], alone[:, :count], rtol=1e-3, atol=1e-3)
    assert weight_padded[:, :count].min() > 0.99 and weight_padded[:, -1].max() < 1


@pytest.mark.parametrize("head", HEADS)
def test_every_clip_has_some_say_and_padding_none(head: HeadConfig) -> None:
    valid = torch.zeros(3, 32)
    valid[0, :], valid[1, :12], valid[2, :1] = 1, 1, 1
    score, weight = make_head(head, 32)(torch.randn(3, 32, 32), valid)
    assert score.shape == weight.shape
    assert (weight[0] == 1).all()
    assert (weight.sum(1) > 0).all() and (weight[1] < 1).any()


def test_masked_group_norm_is_group_norm_where_nothing_is_masked() -> None:
    x, norm = torch.randn(2, 64, 10), MaskedGroupNorm(64)
    plain = torch.nn.functional.group_norm(x, norm.num_groups, norm.weight, norm.bias, norm.eps)
    torch.testing.assert_close(norm(x, torch.ones(2, 10)), plain, rtol=1e-4, atol=1e-5)
    padded = torch.cat([x, torch.full((2, 64, 5), 9.0)], dim=2)
    masked = norm(padded, torch.cat([torch.ones(2, 10), torch.zeros(2, 5)], dim=1))
    torch.testing.assert_close(masked[:, :, :10], plain, rtol=1e-4, atol=1e-5)
    assert not masked[:, :, 10:].any()


def test_the_published_head_needs_its_64_tokens() -> None:
    published = HeadConfig(kind="conv", stages=4, kernel=4)
    assert published.shortest == 64
    score, _ = make_head(published, 32)(torch.randn(1, 32, 64), torch.ones(1, 64))
    assert score.shape == (1, 1)


def test_a_head_longer_than_the_sequence_is_refused_when_the_config_loads() -> None:
    with pytest.raises(ConfigError, match="needs 64 tokens, a clip of 65536 samples has 32"):
        presets.load("ci", ["arc.head.stages=4", "arc.head.kernel=4"])


def test_latents_shorter_than_the_head_are_refused(dit: DiT, make_batch) -> None:
    with pytest.raises(ModelInputError, match="needs 24 tokens, the latents have 16"):
        scores(Discriminator(dit, 1, HeadConfig(stages=3, kernel=3)), make_batch())
