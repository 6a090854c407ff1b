"""What a trial measured, on its way through the study's storage into `weights.json`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial

from sonarc.contracts.config import Objective
from sonarc.contracts.tuning import Against, Trial
from sonarc.metrics.bootstrap import interval
from sonarc.tuning.space import weights_of


@dataclass(frozen=True)
class Measured:
    """What a trial reports.

    Attributes:
        frechet: distance to the validation clips; NaN where training or samples diverged, or it was stopped.
        adherence: mean cosine of samples and prompts; NaN likewise.
        curves: figures of some steps of the training, step → name → value.
        drawn: the distance of each bootstrap resample of the prompts, the same ones for every trial.
        diversity: mean cosine distance between generations of a prompt; NaN unless it is an objective.
        stopped: whether it had fallen behind at a rung.
    """

    frechet: float
    adherence: float
    curves: dict[int, dict[str, float]] = field(default_factory=dict)
    drawn: tuple[float, ...] = ()
    diversity: float = math.nan
    stopped: bool = False

    def figures(self, objectives: Sequence[Objective]) -> dict[str, Any]:
        """What the storage keeps: all that is wanted is finite, or nothing is."""
        kept = {name: float(getattr(self, name)) for name in ("frechet", "adherence", "diversity")}
        sound = all(math.isfinite(kept[name]) for name in {"frechet", "adherence", *objectives})
        shown = {name: value if sound and math.isfinite(value) else None for name, value in kept.items()}
        return {**shown, "drawn": list(self.drawn) if sound else [], "stopped": self.stopped}


def diverged(curves: Mapping[int, Mapping[str, float]] | None = None, *, stopped: bool = False) -> Measured:
    """A trial without figures."""
    return Measured(math.nan, math.nan, {n: dict(row) for n, row in (curves or {}).items()}, stopped=stopped)


def documents(trials: Sequence[FrozenTrial]) -> list[Trial]:
    """The storage's trials as `weights.json` has them; one without figures died with its coordinators."""
    nothing: dict[str, Any] = {"frechet": None, "adherence": None, "diversity": None, "drawn": [], "stopped": False}
    figures = {trial.user_attrs["number"]: trial.user_attrs.get("figures", nothing) for trial in trials}
    return [
        Trial(
            number=trial.user_attrs["number"],
            weights=weights_of(trial.params),
            against_default=_against(trial.user_attrs["number"], figures),
            rungs={step: _finite(value) for step, value in sorted(trial.intermediate_values.items())},
            **{name: figures[trial.user_attrs["number"]][name] for name in ("frechet", "adherence", "diversity")},
            stopped=figures[trial.user_attrs["number"]]["stopped"],
        )
        for trial in trials
    ]


def _against(number: int, figures: Mapping[int, Mapping[str, Any]]) -> Against | None:
    """A trial's distance minus that of the configured weights, over the same resamples of the prompts."""
    trial, default = figures[number], figures.get(0)
    if default is None or number == 0 or not (trial["drawn"] and default["drawn"]):
        return None
    difference = np.asarray(trial["drawn"]) - np.asarray(default["drawn"])
    found = interval(trial["frechet"] - default["frechet"], difference)
    return Against(value=found.value, low=found.low, high=found.high)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
