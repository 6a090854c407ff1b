"""Which of several measured trials of the ARC loss weights is taken."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sonarc.contracts.errors import StageError
from sonarc.contracts.tuning import Trial, TunedWeights


def choose(trials: Sequence[Trial], *, adherence_slack: float) -> TunedWeights:
    """The trial with the smallest distance among those that follow their prompts as the configured weights do, and are
    nearer than these by more than chance; without one, the configured weights.

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
    if sound[0].number == 0:
        better = [trial for trial in admitted if trial.against_default and trial.against_default.high < 0]
        admitted = better or sound[:1]
    best = min(admitted, key=lambda trial: (trial.frechet, trial.number))
    return TunedWeights(weights=best.weights, chosen=best.number, trials=tuple(ordered))
