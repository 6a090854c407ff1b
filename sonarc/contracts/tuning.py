"""`weights.json`: what tuning measured and chose, and what post-training reads."""

from __future__ import annotations

import math

from pydantic import BaseModel, ConfigDict, Field


class LossWeights(BaseModel):
    """The weights that are searched."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    contrastive_weight: float = Field(ge=0)
    """λ of the contrastive term."""
    penalty_weight: float = Field(ge=0)
    """Weight of the approximated R1/R2 penalty."""


class Trial(BaseModel):
    """One short training with some weights, and how its samples score on the validation split."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    number: int = Field(ge=0)
    """0 has the configured weights."""
    weights: LossWeights
    frechet: float | None
    """Fréchet distance of the samples to the validation clips; None where the training or the samples diverged."""
    adherence: float | None
    """Mean cosine of the samples with their prompts."""

    @property
    def failed(self) -> bool:
        """Whether a figure is missing or not finite."""
        return not all(value is not None and math.isfinite(value) for value in (self.frechet, self.adherence))


class TunedWeights(BaseModel):
    """`weights.json`: what tuning chose, and every trial."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    contrastive_weight: float
    penalty_weight: float
    chosen: int
    """Number of the trial with these weights."""
    trials: tuple[Trial, ...]
