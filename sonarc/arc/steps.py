"""The two steps of ARC post-training, as losses to be differentiated.

    x_t = (1-t) x0 + t ε        x̂0 = x_t - t v(x_t, t, c)       t ~ p_gen
    x_s = (1-s) x0 + s n        x̂_s = (1-s) x̂0 + s n            s ~ p_disc, independent of t

A real clip and its fake share prompt, s and n, so D can only tell them apart by what the generator got wrong.
Neither guidance nor text dropout takes part. Everything runs under bfloat16 autocast; losses are float32.

Source: arXiv 2505.08175, section 3, and the defects of its reference implementation avoided.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor, nn

from sonarc.arc import losses
from sonarc.contracts.config import ArcConfig
from sonarc.dit import Conditioning, concatenate_conditioning
from sonarc.flow import clean_estimate, interpolate, sample_noise_levels
from sonarc.text import TextStates
from sonarc.training import LatentBatch, autocast, step_generator


@dataclass(frozen=True)
class WholeBatch:
    """What a part of a batch must know of the whole, of G clips.

    Attributes:
        mask_GT: True at true frames.
        unlike_G: whether a clip's other prompt is truly wrong for it.
    """

    mask_GT: Tensor
    unlike_G: Tensor


@dataclass(frozen=True)
class ArcBatch:
    """Real clips and, for the contrastive term, wrong prompts.

    Attributes:
        real: latents with their own prompts.
        wrong: another prompt for each clip.
        unlike_B: whether that prompt is truly wrong for the clip.
        of: the batch that these clips are a part of; None: they are all of it.
    """

    real: LatentBatch
    wrong: TextStates
    unlike_B: Tensor
    of: WholeBatch | None = None

    def __len__(self) -> int:
        return len(self.real)

    def part(self, items: slice) -> ArcBatch:
        """Some of the clips."""
        return ArcBatch(self.real[items], self.wrong[items], self.unlike_B[items], self.whole)

    @property
    def whole(self) -> WholeBatch:
        """The batch that these clips are a part of, or all of."""
        return self.of or WholeBatch(self.real.mask_BT, self.unlike_B)

    def to(self, device: torch.device | str) -> ArcBatch:
        """The same batch on another device."""
        whole = self.of and WholeBatch(self.of.mask_GT.to(device), self.of.unlike_G.to(device))
        return ArcBatch(self.real.to(device), self.wrong.to(device), self.unlike_B.to(device), whole)


@dataclass(frozen=True)
class Divisors:
    """What the sums of a part are divided by: the whole batch's counts, over the number of workers. The losses of a
    worker's parts then add up, and those of workers average, to the whole batch's.

    Attributes:
        positions: valid score positions.
        unlike: valid score positions of clips whose other prompt is wrong.
        clips, frames: clips and true frames.
    """

    positions: Tensor
    unlike: Tensor
    clips: float
    frames: Tensor

    @classmethod
    def of(cls, batch: WholeBatch, weight_GM: Tensor, workers: int = 1) -> Divisors:
        """Those of a batch shared by workers, whose scores have these weights."""
        return cls(
            positions=weight_GM.sum() / workers,
            unlike=(weight_GM * batch.unlike_G[:, None]).sum() / workers,
            clips=len(weight_GM) / workers,
            frames=batch.mask_GT.sum() / workers,
        )


@dataclass(frozen=True)
class ArcDraws:
    """All that is random in a step: noise levels t and s, noise ε and n, and n' of the gradient penalty."""

    t_B: Tensor
    noise_BCT: Tensor
    s_B: Tensor
    renoise_BCT: Tensor
    nudge_BCT: Tensor

    def part(self, items: slice) -> ArcDraws:
        """One worker's part."""
        return ArcDraws(*(getattr(self, field.name)[items] for field in fields(self)))

    def to(self, device: torch.device | str) -> ArcDraws:
        """The same draws on another device."""
        return ArcDraws(*(getattr(self, field.name).to(device) for field in fields(self)))


Side = Literal["discriminator", "generator"]


def draw_arc(config: ArcConfig, step: int, side: Side, shape: tuple[int, int, int]) -> ArcDraws:
    """The draws of one side's step: a pure function of (seed, step, side), whatever the number of workers.

    Args:
        config: noise distributions, penalty and seed.
        step: global step.
        side: whose step it is.
        shape: (B, C, T) of the whole batch.
    """
    rng = step_generator(config.seed, step, f"arc-{side}")
    t_B = sample_noise_levels(config.noise_generator, shape[0], rng)
    s_B = sample_noise_levels(config.noise_discriminator, shape[0], rng)
    noise_BCT, renoise_BCT, nudge_BCT = (torch.randn(shape, generator=rng) for _ in range(3))
    return ArcDraws(t_B, noise_BCT, s_B, renoise_BCT, nudge_BCT * config.penalty_sigma)


@dataclass(frozen=True)
class StepLoss:
    """A scalar to differentiate and detached figures to report, which add up over the parts of a batch.

    Attributes:
        fake_BCT: the generator's clean estimates, for figures of the whole batch.
    """

    loss: Tensor
    metrics: dict[str, Tensor]
    fake_BCT: Tensor


def discriminator_step(
    generator: nn.Module,
    discriminator: nn.Module,
    batch: ArcBatch,
    draws: ArcDraws,
    config: ArcConfig,
    divisors: Divisors | None = None,
) -> StepLoss:
    """`L_D + λ L_C + γ (R1 + R2) / 2`, with gradients to the discriminator only.

    Real, fake, mismatched and perturbed latents are scored in one batch. A term of weight 0 costs nothing. `divisors`
    are needed where `batch` is a part of one.
    """
    with torch.no_grad():
        fake_BCT = estimate_clean(generator, batch, draws)
        real_s_BCT = interpolate(batch.real.x0_BCT, draws.renoise_BCT, draws.s_B)
        fake_s_BCT = interpolate(fake_BCT, draws.renoise_BCT, draws.s_B)

    cond = batch.real.cond
    inputs = {"real": (real_s_BCT, cond)}
    if config.adversarial_weight or config.penalty_weight:
        inputs["fake"] = (fake_s_BCT, cond)
    if config.contrastive_weight:
        inputs["mismatched"] = (real_s_BCT, cond.with_text(batch.wrong))
    if config.penalty_weight:
        inputs["real_near"] = (real_s_BCT + draws.nudge_BCT, cond)
        inputs["fake_near"] = (fake_s_BCT + draws.nudge_BCT, cond)
    score, weight_BM = score_together(discriminator, inputs, batch, draws)
    divisors = divisors or Divisors.of(batch.whole, weight_BM)

    loss = score["real"].new_zeros(())
    metrics = {}
    if config.adversarial_weight:
        loss_d = losses.DISCRIMINATOR[config.loss](score["real"], score["fake"], weight_BM, divisors.positions)
        loss = loss + config.adversarial_weight * loss_d
        metrics["loss_d"] = loss_d
        metrics["score_gap"] = losses.weighted_mean(score["real"] - score["fake"], weight_BM, divisors.positions)
    if config.contrastive_weight:
        unlike_BM = weight_BM * batch.unlike_B[:, None]
        loss_c = losses.contrastive(score["real"], score["mismatched"], unlike_BM, divisors.unlike)
        loss = loss + config.contrastive_weight * loss_c
        metrics["loss_c"] = loss_c
        gap_BM = score["real"] - score["mismatched"]
        metrics["contrast_gap"] = losses.weighted_mean(gap_BM, unlike_BM, divisors.unlike)
        metrics["unmatched"] = (~batch.unlike_B).float().sum()
    if config.penalty_weight:
        r1 = losses.approximate_penalty(score["real"], score["real_near"], weight_BM, divisors.clips)
        r2 = losses.approximate_penalty(score["fake"], score["fake_near"], weight_BM, divisors.clips)
        loss = loss + config.penalty_weight * (r1 + r2) / 2
        metrics |= {"r1": r1, "r2": r2}
    return StepLoss(loss, {name: value.detach() for name, value in metrics.items()}, fake_BCT)


Alignment = Callable[[Tensor, Conditioning, Tensor], Tensor]
"""`alignment(x̂0_BCT, cond, mask_BT) -> loss`: how far estimates are from their prompts."""


def generator_step(
    generator: nn.Module,
    discriminator: nn.Module,
    batch: ArcBatch,
    draws: ArcDraws,
    config: ArcConfig,
    alignment: Alignment | None = None,
    divisors: Divisors | None = None,
) -> StepLoss:
    """`L_G` (+ an alignment term), with gradients to the generator only: D's weights and its real branch build no
    graph. `divisors` are needed where `batch` is a part of one."""
    fake_BCT = estimate_clean(generator, batch, draws)
    fake_s_BCT = interpolate(fake_BCT, draws.renoise_BCT, draws.s_B)
    with torch.no_grad():
        real_s_BCT = interpolate(batch.real.x0_BCT, draws.renoise_BCT, draws.s_B)
        real, _ = score_together(discriminator, {"real": (real_s_BCT, batch.real.cond)}, batch, draws)
    with frozen(discriminator):
        fake, weight_BM = score_together(discriminator, {"fake": (fake_s_BCT, batch.real.cond)}, batch, draws)
    divisors = divisors or Divisors.of(batch.whole, weight_BM)
    loss_g = losses.GENERATOR[config.loss](real["real"], fake["fake"], weight_BM, divisors.positions)
    loss, metrics = config.adversarial_weight * loss_g, {"loss_g": loss_g.detach()}
    if alignment is not None and config.clap_weight:
        loss_a = alignment(fake_BCT, batch.real.cond, batch.real.mask_BT) * (len(batch) / divisors.clips)
        loss, metrics = loss + config.clap_weight * loss_a, metrics | {"loss_clap": loss_a.detach()}
    return StepLoss(loss, metrics, fake_BCT.detach())


def estimate_clean(generator: nn.Module, batch: ArcBatch, draws: ArcDraws) -> Tensor:
    """`x̂0 = x_t - t v(x_t, t, c)` `(B, C, T)` float32; beyond its true frames a fake is given the real's
    padding, which tells D nothing."""
    x_t_BCT = interpolate(batch.real.x0_BCT, draws.noise_BCT, draws.t_B)
    with autocast(x_t_BCT.device):
        v_BCT = generator(x_t_BCT, draws.t_B, batch.real.cond, mask_BT=batch.real.mask_BT)
    clean_BCT = clean_estimate(x_t_BCT, draws.t_B, v_BCT.float())
    return torch.where(batch.real.mask_BT[:, None], clean_BCT, batch.real.x0_BCT)


def score_together(
    discriminator: nn.Module, inputs: dict[str, tuple[Tensor, Conditioning]], batch: ArcBatch, draws: ArcDraws
) -> tuple[dict[str, Tensor], Tensor]:
    """Scores `(B, M)` of each named input at the batch's levels s, in one pass, and their weights `(B, M)`."""
    count = len(inputs)
    x_BCT = torch.cat([x for x, _ in inputs.values()])
    cond = concatenate_conditioning([cond for _, cond in inputs.values()])
    s_B, mask_BT = draws.s_B.repeat(count), batch.real.mask_BT.repeat(count, 1)
    with autocast(x_BCT.device):
        scores, weights = discriminator(x_BCT, s_B, cond, mask_BT=mask_BT)
    return dict(zip(inputs, scores.chunk(count), strict=True)), weights.chunk(count)[0]


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """No gradient to the parameters of `module`; gradients still flow through it to its input."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
