"""Which of several measured trials of the ARC loss weights is taken."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from sonarc.contracts.config import Objective, TuneConfig
from sonarc.contracts.errors import StageError
from sonarc.contracts.tuning import Trial, TunedWeights

DIRECTIONS: Mapping[Objective, str] = {"frechet": "minimize", "adherence": "maximize", "diversity": "maximize"}


def choose(
    trials: Sequence[Trial], tune: TuneConfig, space: Mapping[str, tuple[float, float]] | None = None
) -> TunedWeights:
    """The best of the trials that are nearer than the configured weights by more than chance; without one, these.

    Admitted is a trial whose distance minus trial 0's, resampled over the same prompts, has its whole interval below 0,
    and which follows its prompts, and varies, no less than trial 0 by more than the slack. Of the Pareto front of those
    it takes the one nearest to the front's ideal point, each objective scaled to its range on the front: with the
    distance as the one objective, the smallest.

    Args:
        trials: measured trials, number 0 with the configured weights.
        tune: objectives, and what a trial may lose against trial 0 in those that are not the distance.
        space: what was searched, for the record.

    Raises:
        StageError: every trial failed.
    """
    ordered = sorted(trials, key=lambda trial: trial.number)
    sound = [trial for trial in ordered if trial.measured]
    if not sound:
        raise StageError(
            f"All {len(ordered)} trials diverged.",
            "Lower arc.lr_generator and arc.lr_discriminator, or check the base.",
        )
    admitted = sound
    if (default := sound[0]).number == 0:
        admitted = [trial for trial in sound if _beats(trial, default, tune)] or [default]
    best = _nearest_to_ideal(pareto_front(admitted, tune.objectives), tune.objectives)
    return TunedWeights(
        weights=best.weights,
        chosen=best.number,
        trials=tuple(ordered),
        objectives=tune.objectives,
        space=dict(space or {}),
    )


def pareto_front(trials: Sequence[Trial], objectives: Sequence[Objective]) -> list[Trial]:
    """The trials that no other one is at least as good as in every objective and better in one."""
    costs_NO = _costs(trials, objectives)
    dominated = [bool(((costs_NO <= cost_O).all(1) & (costs_NO < cost_O).any(1)).any()) for cost_O in costs_NO]
    return [trial for trial, worse in zip(trials, dominated, strict=True) if not worse]


def _beats(trial: Trial, default: Trial, tune: TuneConfig) -> bool:
    if trial.against_default is None or trial.against_default.high >= 0:
        return False
    kept = _kept(trial.adherence, default.adherence, tune.adherence_slack)
    return kept and _kept(trial.diversity, default.diversity, tune.diversity_slack)


def _kept(value: float | None, default: float | None, slack: float) -> bool:
    return default is None or (value is not None and value >= default - slack)


def _nearest_to_ideal(front: Sequence[Trial], objectives: Sequence[Objective]) -> Trial:
    costs_NO = _costs(front, objectives)
    ideal_O, range_O = costs_NO.min(0), np.ptp(costs_NO, axis=0)
    away_N = np.linalg.norm((costs_NO - ideal_O) / np.where(range_O > 0, range_O, 1.0), axis=1)
    return front[int(away_N.argmin())]  # the first of equals has the lowest number


def _costs(trials: Sequence[Trial], objectives: Sequence[Objective]) -> np.ndarray:
    """Objectives to be minimised `(N, O)`; what was not measured is worst."""
    signs = [1.0 if DIRECTIONS[name] == "minimize" else -1.0 for name in objectives]
    figures = [[getattr(trial, name) for name in objectives] for trial in trials]
    return np.array([[math.inf if v is None else s * v for s, v in zip(signs, row, strict=True)] for row in figures])
