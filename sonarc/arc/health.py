"""Early signs that adversarial training goes wrong, from figures a step has at hand."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

HIGH_SCORE_GAP = 3.0
"""Beyond this mean D(real) - D(fake), softplus leaves G less than 5 % of its gradient."""
STD_RATIO = (0.6, 1.5)
"""std(x̂0) / std(x0) of a healthy generator; it starts near 0.85 and settles near 1."""
LOW_VARIETY = 0.4
"""Distance between generated clips over that between the real ones; about 1 is healthy, 0 is one clip for all."""
HIGH_GRADIENT = 50.0
"""Gradient norm of G before clipping; 5 to 20 is usual."""


def std_ratio(fake_BCT: Tensor, real_BCT: Tensor, mask_BT: Tensor | None = None) -> Tensor:
    """`std(x̂0) / std(x0)` over the true frames: below 1 the estimates are blurred or collapsed."""
    with torch.no_grad():
        if mask_BT is None:
            return fake_BCT.float().std() / real_BCT.float().std().clamp_min(1e-6)
        weight_B1T = mask_BT[:, None].to(real_BCT)
        return _std(fake_BCT.float(), weight_B1T) / _std(real_BCT.float(), weight_B1T).clamp_min(1e-6)


def variety(fake_BCT: Tensor, real_BCT: Tensor, mask_BT: Tensor) -> Tensor:
    """How far apart the estimates of a batch lie, over how far apart its real clips do: the diversity probe.

    A clip is its mean and deviation in every channel over its true frames; distances are averaged over all pairs.
    The spread of latents may look sound while all clips become alike: this does not. 1 for a batch of one.
    """
    with torch.no_grad():
        if len(real_BCT) < 2:
            return real_BCT.new_ones(())
        weight_B1T = mask_BT[:, None].to(real_BCT)
        return _apart(fake_BCT.float(), weight_B1T) / _apart(real_BCT.float(), weight_B1T).clamp_min(1e-6)


def _apart(x_BCT: Tensor, weight_B1T: Tensor) -> Tensor:
    count_B1 = weight_B1T.sum(-1).clamp_min(1)
    mean_BC = (x_BCT * weight_B1T).sum(-1) / count_B1
    deviation_BC = (((x_BCT - mean_BC[..., None]).square() * weight_B1T).sum(-1) / count_B1).sqrt()
    return torch.pdist(torch.cat((mean_BC, deviation_BC), dim=1)).mean()


def _std(x_BCT: Tensor, weight_B1T: Tensor) -> Tensor:
    count = (weight_B1T.sum() * x_BCT.shape[1]).clamp_min(1)
    mean = (x_BCT * weight_B1T).sum() / count
    return (((x_BCT - mean).square() * weight_B1T).sum() / count).sqrt()


@dataclass
class Health:
    """Running view of a run: smooths the figures of single steps and says once what looks wrong."""

    decay: float = 0.9
    smooth: dict[str, float] = field(default_factory=dict)
    warned: set[str] = field(default_factory=set)

    def update(self, metrics: Mapping[str, float]) -> list[str]:
        """Take in the metrics of a step; returns warnings not given before, in plain words."""
        for name, value in metrics.items():
            self.smooth[name] = self.decay * self.smooth.get(name, value) + (1 - self.decay) * value
        found = self._signs()
        new = [text for name, text in found.items() if name not in self.warned]
        self.warned |= set(found)
        return new

    def _signs(self) -> dict[str, str]:
        signs: dict[str, str] = {}
        if not all(math.isfinite(value) for value in self.smooth.values()):
            names = ", ".join(name for name, value in self.smooth.items() if not math.isfinite(value))
            signs["nan"] = f"{names} is not finite: the run cannot recover; lower the learning rates."
            return signs
        gap, ratio = self.smooth.get("score_gap", 0.0), self.smooth.get("std_ratio", 1.0)
        if gap > HIGH_SCORE_GAP:
            signs["gap"] = (
                f"The discriminator is far ahead (score gap {gap:.2f}): raise arc.penalty_weight "
                "or lower arc.lr_discriminator."
            )
        if not STD_RATIO[0] <= ratio <= STD_RATIO[1]:
            signs["std"] = f"The generator's latents have {ratio:.2f} times the spread of real ones: it may collapse."
        if (varied := self.smooth.get("variety", 1.0)) < LOW_VARIETY:
            signs["variety"] = (
                f"Generated clips lie {varied:.2f} times as far apart as real ones: they are becoming alike; lower "
                "arc.lr_generator or arc.contrastive_weight."
            )
        if (norm := self.smooth.get("grad_norm_g", 0.0)) > HIGH_GRADIENT:
            signs["gradient"] = f"The generator's gradient norm is {norm:.0f}: lower arc.lr_generator."
        return signs
