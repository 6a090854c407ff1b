"""A finished search as pictures: its history, what mattered, the Pareto front, the weights side by side.

They are drawn from `weights.json` alone, so that the tracked run and the report show the same.
"""

from __future__ import annotations

import io
import logging
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import optuna
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, TrialState
from optuna.visualization import matplotlib as drawn

from sonarc.contracts.config import Objective
from sonarc.contracts.tuning import Trial, TunedWeights
from sonarc.tuning.choice import DIRECTIONS
from sonarc.tuning.space import LINEAR

logger = logging.getLogger(__name__)

LABELS: dict[Objective, str] = {"frechet": "Fréchet distance", "adherence": "adherence", "diversity": "diversity"}
COMPARED = 2
"""Measured trials from which on weights can be compared."""


@dataclass(frozen=True)
class Picture:
    """One figure.

    Attributes:
        name: of its file, without ending.
        title: what it shows, in words.
        svg: the picture.
    """

    name: str
    title: str
    svg: str


def study_figures(tuned: TunedWeights) -> list[Picture]:
    """The figures that the trials suffice for: the Pareto front wants two objectives, a comparison two trials."""
    study, measured = _study(tuned), [trial for trial in tuned.trials if trial.measured]
    if not measured:
        return []
    found = [_picture("history", "Distance of each trial", lambda: _history(study))]
    if len(measured) >= COMPARED and tuned.space:
        if _differ(measured):
            found.append(_picture("importance", "What mattered to the distance", lambda: _importance(study)))
        found.append(_picture("parallel", "Weights and distance of each trial", lambda: _parallel(study)))
    if len(tuned.objectives) > 1:
        names = [LABELS[name] for name in tuned.objectives]
        found.append(
            _picture("pareto", "Pareto front", lambda: drawn.plot_pareto_front(study, target_names=names)),
        )
    return found


def _study(tuned: TunedWeights) -> optuna.Study:
    """The study again, in memory."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(directions=[DIRECTIONS[name] for name in tuned.objectives])
    study.add_trials([_frozen(trial, tuned) for trial in tuned.trials])
    return study


def _frozen(trial: Trial, tuned: TunedWeights) -> FrozenTrial:
    weights = trial.weights.model_dump(exclude_none=True)
    space = {name: bounds for name, bounds in tuned.space.items() if bounds[0] <= weights[name] <= bounds[1]}
    state = TrialState.COMPLETE if trial.measured else TrialState.PRUNED if trial.stopped else TrialState.FAIL
    return optuna.create_trial(
        state=state,
        values=[getattr(trial, name) for name in tuned.objectives] if trial.measured else None,
        params={name: weights[name] for name in space},
        distributions={name: FloatDistribution(*space[name], log=name not in LINEAR) for name in space},
        intermediate_values={step: math.nan if value is None else value for step, value in trial.rungs.items()},
    )


def _differ(measured: list[Trial]) -> bool:
    return bool(np.ptp([trial.frechet for trial in measured if trial.frechet is not None]) > 0)


def _distance(trial: FrozenTrial) -> float:
    return float(trial.values[0])


def _history(study: optuna.Study) -> Any:
    return drawn.plot_optimization_history(study, target=_distance, target_name=LABELS["frechet"])


def _importance(study: optuna.Study) -> Any:
    # Optuna's default looks at the best tenth of the trials: with a dozen of them that is one.
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    return drawn.plot_param_importances(study, evaluator, target=_distance, target_name=LABELS["frechet"])


def _parallel(study: optuna.Study) -> Any:
    return drawn.plot_parallel_coordinate(study, target=_distance, target_name=LABELS["frechet"])


def _picture(name: str, title: str, draw: Callable[[], Any]) -> Picture:
    """A figure as text, the same for the same trials."""
    text = io.StringIO()
    with plt.rc_context({"svg.hashsalt": "sonarc"}), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna's drawings in matplotlib work, and are called experimental
        try:
            figure = draw().figure
            figure.axes[0].set_title("", loc="left")
            figure.axes[0].set_title(title)
            figure.savefig(text, format="svg", bbox_inches="tight", metadata={"Date": None})
        finally:
            plt.close("all")
    return Picture(name, title, text.getvalue())
