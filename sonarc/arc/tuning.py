"""Choosing the ARC loss weights: a measured trial, and which of several is taken."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from sonarc.contracts.errors import StageError


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


def choose(trials: Sequence[Trial], *, adherence_slack: float) -> TunedWeights:
    """The trial with the smallest distance among those that follow their prompts as the configured weights do.

    Args:
        trials: measured trials, number 0 with the configured weights.
        adherence_slack: a trial whose adherence is below trial 0's by more than this is not chosen.

    Raises:
        StageError: every trial failed.
    """
    ordered = sorted(trials, key=lambda trial: trial.number)
    sound = [trial for trial in ordered if not trial.failed]
    if not sound:
        raise StageError(
            f"All {len(ordered)} trials diverged.",
            "Lower arc.lr_generator and arc.lr_discriminator, or check the base.",
        )
    least = -math.inf
    if sound[0].number == 0 and sound[0].adherence is not None:
        least = sound[0].adherence - adherence_slack
    admitted = [trial for trial in sound if trial.adherence is not None and trial.adherence >= least]
    best = min(admitted, key=lambda trial: (trial.frechet, trial.number))
    return TunedWeights(**best.weights.model_dump(), chosen=best.number, trials=tuple(ordered))
