"""The two steps: what they compute, where gradients go, and the reference's defects held off."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sonarc.arc import ArcBatch, ArcDraws, Discriminator, discriminator_step, draw_arc, generator_step
from sonarc.arc.steps import estimate_clean, score_together
from sonarc.contracts.config import ArcConfig
from sonarc.dit import DiT
from sonarc.text import TextStates


def draws_for(arc: ArcConfig, batch: ArcBatch, step: int = 0) -> ArcDraws:
    return draw_arc(arc, step, "discriminator", tuple(batch.real.x0_BCT.shape))  # type: ignore[arg-type]


def gradients(module: nn.Module) -> set[str]:
    return {name for name, p in module.named_parameters() if p.grad is not None and p.grad.any()}


class Spy(nn.Module):
    """Passes calls on and keeps what a discriminator is shown."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.calls: list[dict] = []

    def forward(self, x_BCT, s_B, cond, *, mask_BT):
        out = self.inner(x_BCT, s_B, cond, mask_BT=mask_BT)
        self.calls.append(
            {
                "x": x_BCT,
                "s": s_B,
                "cond": cond,
                "graph": out[0].requires_grad,
                "autocast": torch.is_autocast_enabled("cpu"),
                "weights_trained": all(p.requires_grad for p in self.inner.parameters()),
            }
        )
        return out


def test_the_discriminator_learns_and_the_generator_does_not(dit: DiT, discriminator, arc, make_batch) -> None:
    batch = make_batch()
    discriminator_step(dit, discriminator, batch, draws_for(arc, batch), arc).loss.backward()
    assert gradients(dit) == set()
    assert len(gradients(discriminator)) > 20


def test_the_generator_learns_and_the_discriminator_does_not(dit: DiT, discriminator, arc, make_batch) -> None:
    batch = make_batch()
    generator_step(dit, discriminator, batch, draws_for(arc, batch), arc).loss.backward()
    assert len(gradients(dit)) > 20
    assert all(p.grad is None and p.requires_grad for p in discriminator.parameters())


def test_real_fake_and_mismatched_are_one_batch_with_the_same_levels(dit, discriminator, arc, make_batch) -> None:
    batch, spy = make_batch(), Spy(discriminator)
    draws = draws_for(arc, batch)
    discriminator_step(dit, spy, batch, draws, arc)
    (call,) = spy.calls
    real, fake, mismatched = call["x"].chunk(3)
    assert call["autocast"]
    for levels in call["s"].chunk(3):
        assert torch.equal(levels, draws.s_B)
    assert torch.equal(real, mismatched)
    # Same s and same n: the difference of the pair is that of the clean latents alone.
    with torch.no_grad():
        clean = estimate_clean(dit, batch, draws)
    expected = (1 - draws.s_B[:, None, None]) * (batch.real.x0_BCT - clean)
    torch.testing.assert_close(real - fake, expected, rtol=1e-4, atol=1e-5)
    own, shared, wrong = (call["cond"][slice(i, i + 4)] for i in (0, 4, 8))
    assert torch.equal(own.text.tokens_BLE, shared.text.tokens_BLE)
    assert torch.equal(wrong.text.tokens_BLE, batch.wrong.tokens_BLE)
    assert torch.equal(wrong.seconds_B, own.seconds_B), "only the text is exchanged, not the duration"


def test_the_generators_step_builds_no_graph_through_the_real_branch(dit, discriminator, arc, make_batch) -> None:
    batch, spy = make_batch(), Spy(discriminator)
    generator_step(dit, spy, batch, draws_for(arc, batch), arc)
    real, fake = spy.calls
    assert not real["graph"] and fake["graph"] and not fake["weights_trained"]


def test_losses_are_those_of_the_paper(dit, discriminator, make_batch, arc) -> None:
    arc = arc.model_copy(update={"contrastive_weight": 0.7, "penalty_weight": 0.3, "adversarial_weight": 2.0})
    batch = make_batch([32, 32])
    draws = draws_for(arc, batch)
    result = discriminator_step(dit, discriminator, batch, draws, arc)

    real, s = batch.real, draws.s_B[:, None, None]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        t = draws.t_B[:, None, None]
        x_t = (1 - t) * real.x0_BCT + t * draws.noise_BCT
        clean = x_t - t * dit(x_t, draws.t_B, real.cond, mask_BT=real.mask_BT).float()

        def d(x0, cond, nudge=0.0):
            x_s = (1 - s) * x0 + s * draws.renoise_BCT + nudge
            return discriminator(x_s, draws.s_B, cond, mask_BT=real.mask_BT)[0]

        on_real, on_fake = d(real.x0_BCT, real.cond), d(clean, real.cond)
        on_wrong = d(real.x0_BCT, real.cond.with_text(batch.wrong))
        r1 = (d(real.x0_BCT, real.cond, draws.nudge_BCT) - on_real).square().sum(1).mean()
        r2 = (d(clean, real.cond, draws.nudge_BCT) - on_fake).square().sum(1).mean()
        loss_d = F.softplus(-(on_real - on_fake)).mean()
        loss_c = F.softplus(-(on_real - on_wrong)).mean()
        loss_g = F.softplus(on_real - on_fake).mean()
    expected = 2.0 * loss_d + 0.7 * loss_c + 0.3 * (r1 + r2) / 2
    torch.testing.assert_close(result.loss.detach(), expected, rtol=2e-2, atol=1e-3)
    found_g = generator_step(dit, discriminator, batch, draws, arc)
    torch.testing.assert_close(found_g.loss.detach(), 2.0 * loss_g, rtol=2e-2, atol=1e-3)


@pytest.mark.parametrize(
    ("off", "gone", "inputs"),
    [
        ({"contrastive_weight": 0.0}, "loss_c", 2),
        ({"penalty_weight": 0.0}, "r1", 3),
        ({"adversarial_weight": 0.0}, "loss_d", 2),
    ],
)
def test_a_zero_weight_disables_its_term_and_its_cost(dit, discriminator, arc, make_batch, off, gone, inputs) -> None:
    batch, spy = make_batch(), Spy(discriminator)
    arc = arc.model_copy(update=off)
    result = discriminator_step(dit, spy, batch, draws_for(arc, batch), arc)
    assert gone not in result.metrics
    assert len(spy.calls[0]["x"]) == inputs * 4


def test_the_contrastive_weight_is_its_own(dit, discriminator, arc, make_batch) -> None:
    # The reference multiplies it by the discriminator's weight.
    batch = make_batch()
    only = arc.model_copy(update={"adversarial_weight": 0.0, "contrastive_weight": 0.5})
    result = discriminator_step(dit, discriminator, batch, draws_for(arc, batch), only)
    torch.testing.assert_close(result.loss.detach(), 0.5 * result.metrics["loss_c"])


def test_unmatched_items_take_no_part_in_the_contrastive_term_and_are_counted(
    dit, discriminator, arc, make_batch
) -> None:
    batch = make_batch([32, 32, 32, 32])
    draws = draws_for(arc, batch)
    some = dataclasses.replace(batch, unlike_B=torch.tensor([True, True, False, False]))
    found = discriminator_step(dit, discriminator, some, draws, arc).metrics
    assert found["unmatched"] == 2
    tokens = batch.wrong.tokens_BLE.clone()
    tokens[2:] = 50.0
    altered = dataclasses.replace(some, wrong=TextStates(tokens, batch.wrong.mask_BL))
    again = discriminator_step(dit, discriminator, altered, draws, arc).metrics
    torch.testing.assert_close(again["loss_c"], found["loss_c"], rtol=1e-3, atol=1e-4)
    none = dataclasses.replace(batch, unlike_B=torch.zeros(4).bool())
    assert discriminator_step(dit, discriminator, none, draws, arc).metrics["loss_c"] == 0


def test_a_fake_is_given_the_reals_padding(dit, arc, make_batch) -> None:
    batch = make_batch()
    clean = estimate_clean(dit, batch, draws_for(arc, batch))
    padding = ~batch.real.mask_BT[:, None].expand_as(clean)
    assert torch.equal(clean[padding], batch.real.x0_BCT[padding])
    assert not torch.equal(clean[~padding], batch.real.x0_BCT[~padding])


def test_padding_changes_neither_loss(dit, discriminator, arc, make_batch) -> None:
    batch = make_batch()
    draws = draws_for(arc, batch)
    other = batch.real.x0_BCT.masked_fill(~batch.real.mask_BT[:, None], 30.0)
    altered = dataclasses.replace(batch, real=dataclasses.replace(batch.real, x0_BCT=other))
    for step in (discriminator_step, generator_step):
        first, second = (step(dit, discriminator, b, draws, arc).loss for b in (batch, altered))
        torch.testing.assert_close(first, second, rtol=5e-3, atol=1e-3)


def test_draws_depend_on_seed_step_and_side_alone(arc) -> None:
    shape = (3, 8, 32)
    first, again = draw_arc(arc, 5, "generator", shape), draw_arc(arc, 5, "generator", shape)
    others = [
        draw_arc(arc, 6, "generator", shape),
        draw_arc(arc, 5, "discriminator", shape),
        draw_arc(arc.model_copy(update={"seed": 9}), 5, "generator", shape),
    ]
    assert torch.equal(first.noise_BCT, again.noise_BCT) and torch.equal(first.s_B, again.s_B)
    for other in others:
        assert not torch.equal(first.noise_BCT, other.noise_BCT)
    assert not torch.equal(first.t_B, first.s_B), "s is independent of t"
    assert torch.equal(first.part(slice(1, 3)).noise_BCT, first.noise_BCT[1:3])


def test_generator_levels_are_the_published_distribution(arc) -> None:
    t = draw_arc(arc, 0, "generator", (4000, 1, 1)).t_B
    logsnr = torch.log((1 - t) / t)
    assert -6 <= logsnr.min() < -5.9 and 1.9 < logsnr.max() <= 2
    assert logsnr.mean().item() == pytest.approx(-2, abs=0.15)


def test_scores_of_one_pass_are_those_of_single_passes(dit, discriminator, arc, make_batch) -> None:
    batch: ArcBatch = make_batch()
    draws = draws_for(arc, batch)
    x, cond = batch.real.x0_BCT, batch.real.cond
    together, _ = score_together(discriminator, {"a": (x, cond), "b": (-x, cond)}, batch, draws)
    alone, _ = score_together(discriminator, {"b": (-x, cond)}, batch, draws)
    torch.testing.assert_close(together["b"], alone["b"], rtol=2e-2, atol=2e-2)


def test_the_generator_steps_down_its_loss(dit: DiT, discriminator: Discriminator, arc, make_batch) -> None:
    batch = make_batch()
    draws = draws_for(arc, batch)
    optimizer = torch.optim.AdamW(dit.parameters(), lr=5e-3)
    history = []
    for _ in range(10):
        result = generator_step(dit, discriminator, batch, draws, arc)
        optimizer.zero_grad()
        result.loss.backward()
        optimizer.step()
        history.append(result.loss.item())
    assert history[-1] < history[0] - 0.05
