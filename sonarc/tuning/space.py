"""What is searched, between which bounds, and where the search begins."""

from __future__ import annotations

from collections.abc import Mapping

from sonarc.contracts.config import ArcConfig, TuneConfig
from sonarc.contracts.tuning import LossWeights

LINEAR = ("penalty_weight", "noise_mean")
"""What is searched on a linear scale: it may be 0."""


def configured(tune: TuneConfig, arc: ArcConfig) -> LossWeights:
    """What is configured, of all that is searched."""
    searched = {
        "adversarial_weight": arc.adversarial_weight,
        "penalty_sigma": arc.penalty_sigma,
        "lr_ratio": arc.lr_discriminator / arc.lr_generator,
        "noise_mean": arc.noise_discriminator.mean,
    }
    return LossWeights(
        contrastive_weight=arc.contrastive_weight,
        penalty_weight=arc.penalty_weight,
        **{name: value for name, value in searched.items() if name in tune.ranges()},
    )


def search_space(tune: TuneConfig, arc: ArcConfig) -> dict[str, tuple[float, float]]:
    """The configured ranges, widened to hold what is configured. A term that is switched off stays off."""
    known = configured(tune, arc).model_dump(exclude_none=True)
    return {
        name: (min(low, known[name]), max(high, known[name]))
        for name, (low, high) in tune.ranges().items()
        if name != "contrastive_weight" or arc.contrastive_weight
    }


def weights_of(params: Mapping[str, float]) -> LossWeights:
    """The weights of a point of the space; what is off, or was not drawn before a trial died, is 0."""
    return LossWeights(**{"contrastive_weight": 0.0, "penalty_weight": 0.0, **params})
