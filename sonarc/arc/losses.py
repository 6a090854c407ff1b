"""The ARC objective, given the discriminator's scores.

Sign convention: D is high on real and matched input. Scores are `(B, M)`: M score positions along time.
Every mean runs over batch and positions, weighted by `weight_BM` (the valid share of a position, 0 for
padding and for items that a term leaves out). A part of a batch is given the whole batch's `divisor` instead of its
own weights' sum, so that the terms of the parts add up.

Source: *Fast Text-to-Audio Generation with Adversarial Post-Training*, arXiv 2505.08175. It writes the
objective with f(x) = -log(1 + e^-x) and D of the opposite sign; the losses are the same under D → -D.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor


def weighted_mean(value_BM: Tensor, weight_BM: Tensor | None, divisor: Tensor | None = None) -> Tensor:
    """Mean with weights; 0 (with a zero gradient) where no weight is left."""
    if weight_BM is None:
        return value_BM.mean()
    return (value_BM * weight_BM).sum() / (weight_BM.sum() if divisor is None else divisor).clamp_min(1e-6)


def relativistic_d(
    real_BM: Tensor, fake_BM: Tensor, weight_BM: Tensor | None = None, divisor: Tensor | None = None
) -> Tensor:
    """`L_D = softplus(-(D(x_s, c) - D(x̂_s, c)))`: a real clip should score above the fake of its own prompt."""
    return weighted_mean(F.softplus(fake_BM - real_BM), weight_BM, divisor)


def relativistic_g(
    real_BM: Tensor, fake_BM: Tensor, weight_BM: Tensor | None = None, divisor: Tensor | None = None
) -> Tensor:
    """`L_G = softplus(D(x_s, c) - D(x̂_s, c))`: the same pair with the roles exchanged."""
    return weighted_mean(F.softplus(real_BM - fake_BM), weight_BM, divisor)


def contrastive(
    real_BM: Tensor, mismatched_BM: Tensor, weight_BM: Tensor | None = None, divisor: Tensor | None = None
) -> Tensor:
    """`L_C = softplus(-(D(x_s, c) - D(x_s, P[c])))`: a real clip should score above itself with a wrong prompt."""
    return weighted_mean(F.softplus(mismatched_BM - real_BM), weight_BM, divisor)


def lsgan_d(real_BM: Tensor, fake_BM: Tensor, weight_BM: Tensor | None = None, divisor: Tensor | None = None) -> Tensor:
    """Least squares, for the ablation: `(D(x_s) - 1)² + D(x̂_s)²`."""
    return weighted_mean((real_BM - 1).square() + fake_BM.square(), weight_BM, divisor)


def lsgan_g(real_BM: Tensor, fake_BM: Tensor, weight_BM: Tensor | None = None, divisor: Tensor | None = None) -> Tensor:
    """Least squares, for the ablation: `(D(x̂_s) - 1)²`. The real scores are not used."""
    return weighted_mean((fake_BM - 1).square(), weight_BM, divisor)


def approximate_penalty(
    score_BM: Tensor, perturbed_BM: Tensor, weight_BM: Tensor | None = None, clips: float | None = None
) -> Tensor:
    """`‖D(x + σ n') - D(x)‖²` summed over positions, mean over items: R1 on real input, R2 on fake input.

    For small σ it approaches σ² times the squared gradient norm of the usual penalty, without a second
    derivative. Neither a weight nor 1/σ² is applied here.
    """
    squared_BM = (perturbed_BM - score_BM).square()
    summed_B = (squared_BM if weight_BM is None else squared_BM * weight_BM).sum(dim=1)
    return summed_B.sum() / (len(summed_B) if clips is None else clips)


PairLoss = Callable[[Tensor, Tensor, Tensor | None, Tensor | None], Tensor]
DISCRIMINATOR: dict[str, PairLoss] = {"relativistic": relativistic_d, "lsgan": lsgan_d}
"""Discriminator losses by their name in the configuration."""
GENERATOR: dict[str, PairLoss] = {"relativistic": relativistic_g, "lsgan": lsgan_g}
"""Generator losses by their name in the configuration."""
