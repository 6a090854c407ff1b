"""`weights.json`: what tuning measured and chose, and what post-training reads."""

from __future__ import annotations

import math
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from sonarc.contracts.config import ArcConfig, Objective


class LossWeights(BaseModel):
    """What is searched: the loss weights, and settings around them. None: as configured."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    contrastive_weight: float = Field(ge=0)
    """λ of the contrastive term."""
    penalty_weight: float = Field(ge=0)
    """Weight of the approximated R1/R2 penalty."""
    adversarial_weight: float | None = Field(default=None, ge=0)
    """Weight of the adversarial term."""
    penalty_sigma: float | None = Field(default=None, gt=0)
    """Noise of the penalty."""
    lr_ratio: float | None = Field(default=None, gt=0)
    """The discriminator's learning rate over the generator's, which stays."""
    noise_mean: float | None = None
    """Mean of the discriminator's noise distribution, before the sigmoid."""

    def applied(self, arc: ArcConfig) -> ArcConfig:
        """`arc` with these in place of its own."""
        names = ("contrastive_weight", "penalty_weight", "adversarial_weight", "penalty_sigma")
        update: dict[str, Any] = {name: value for name in names if (value := getattr(self, name)) is not None}
        if self.lr_ratio is not None:
            update["lr_discriminator"] = self.lr_ratio * arc.lr_generator
        if self.noise_mean is not None:
            update["noise_discriminator"] = arc.noise_discriminator.model_copy(update={"mean": self.noise_mean})
        return arc.model_copy(update=update)


class Against(BaseModel):
    """A trial's distance minus that of the configured weights, on the same prompts and noise: a 95 % interval."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    value: float
    low: float
    high: float


class Trial(BaseModel):
    """One short training with some weights, and how its samples score on the validation split."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    number: int = Field(ge=0)
    """0 has the configured weights."""
    weights: LossWeights
    frechet: float | None
    """Fréchet distance of the samples to the validation clips; None where the training or the samples diverged, or the
    trial was stopped."""
    adherence: float | None
    """Mean cosine of the samples with their prompts."""
    diversity: float | None = None
    """Mean cosine distance between generations of one prompt; None unless it is an objective."""
    against_default: Against | None = None
    """None for trial 0, and where one of the two failed."""
    rungs: dict[int, float | None] = {}
    """Step → distance of some samples, where it was taken on the way."""
    stopped: bool = False
    """Whether it fell behind at its last rung."""

    @property
    def measured(self) -> bool:
        """Whether it came to its end and its figures are finite."""
        return all(value is not None and math.isfinite(value) for value in (self.frechet, self.adherence))

    @property
    def failed(self) -> bool:
        """Whether it diverged, or what it ran on died twice."""
        return not (self.measured or self.stopped)


class TunedWeights(BaseModel):
    """`weights.json`: what tuning chose, and every trial."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    weights: LossWeights
    chosen: int
    """Number of the trial with these weights."""
    trials: tuple[Trial, ...]
    objectives: tuple[Objective, ...] = ("frechet",)
    space: dict[str, tuple[float, float]] = {}
    """What was searched, and between which bounds."""
