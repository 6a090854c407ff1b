"""Which trial is taken."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sonarc.contracts.config import TuneConfig
from sonarc.contracts.errors import ConfigError, StageError
from sonarc.contracts.presets import load
from sonarc.contracts.tuning import Against, LossWeights, Trial, TunedWeights
from sonarc.tuning.choice import choose as choose_by
from sonarc.tuning.choice import pareto_front


def choose(trials: Sequence[Trial], adherence_slack: float) -> TunedWeights:
    return choose_by(trials, TuneConfig(adherence_slack=adherence_slack))


def trial(
    number: int,
    frechet: float | None,
    adherence: float | None,
    high: float | None = -0.1,
    diversity: float | None = None,
) -> Trial:
    """A trial; unless told otherwise it beats trial 0 by more than chance."""
    weights = LossWeights(contrastive_weight=1.0 + number, penalty_weight=0.0)
    against = Against(value=-0.2, low=-0.3, high=high) if number and high is not None else None
    return Trial(
        number=number,
        weights=weights,
        frechet=frechet,
        adherence=adherence,
        diversity=diversity,
        against_default=against,
    )


def test_the_smallest_distance_wins() -> None:
    tuned = choose([trial(0, 9.0, 0.4), trial(1, 7.0, 0.4), trial(2, 8.0, 0.9)], adherence_slack=0.02)
    assert (tuned.chosen, tuned.weights.contrastive_weight) == (1, 2.0)
    assert [t.number for t in tuned.trials] == [0, 1, 2]


def test_a_trial_that_no_longer_follows_its_prompts_is_not_chosen() -> None:
    trials = [trial(0, 9.0, 0.40), trial(1, 5.0, 0.37), trial(2, 6.0, 0.385)]
    assert choose(trials, adherence_slack=0.02).chosen == 2
    assert choose(trials, adherence_slack=0.05).chosen == 1
    assert choose(trials[:2], adherence_slack=0.0).chosen == 0


def test_what_may_be_chance_is_not_chosen() -> None:
    trials = [trial(0, 9.0, 0.4), trial(1, 6.0, 0.4, high=0.2), trial(2, 7.0, 0.4), trial(3, 5.0, 0.4, high=None)]
    assert choose(trials, adherence_slack=0.0).chosen == 2
    assert choose([trials[0], trials[1], trials[3]], adherence_slack=0.0).chosen == 0


def test_trials_that_diverged_are_never_chosen() -> None:
    trials = [trial(0, 9.0, 0.4), trial(1, None, None), trial(2, math.nan, 0.9), trial(3, 1.0, math.inf)]
    assert choose(trials, adherence_slack=1.0).chosen == 0


def test_without_a_sound_trial_the_stage_fails() -> None:
    with pytest.raises(StageError, match="All 2 trials diverged"):
        choose([trial(0, None, None), trial(1, None, None)], adherence_slack=0.0)


def test_a_failed_default_sets_no_constraint() -> None:
    assert choose([trial(0, None, None), trial(1, 3.0, 0.1)], adherence_slack=0.0).chosen == 1


scores = st.one_of(st.none(), st.floats(0, 100))


@given(st.lists(st.tuples(scores, scores, st.sampled_from([-0.1, 0.1])), min_size=1, max_size=8), st.floats(0, 1))
def test_the_choice_is_admitted_and_best(drawn, slack: float) -> None:
    trials = [trial(n, *values) for n, values in enumerate(drawn)]
    sound = [t for t in trials if None not in (t.frechet, t.adherence)]
    if not sound:
        return
    chosen = trials[choose(trials, adherence_slack=slack).chosen]
    assert chosen in sound
    least = trials[0].adherence - slack if trials[0] in sound else -math.inf
    assert chosen.adherence >= least
    rivals = [t for t in sound if t.adherence >= least]
    if trials[0] in sound:
        rivals = [t for t in rivals if t.against_default and t.against_default.high < 0] or [trials[0]]
    assert chosen in rivals and all(chosen.frechet <= t.frechet for t in rivals)


THREE = TuneConfig(objectives=("frechet", "adherence", "diversity"))


def test_of_the_front_the_one_nearest_to_the_ideal_is_taken() -> None:
    default = trial(0, 9.0, 0.4, diversity=0.5)
    extremes = [trial(1, 5.0, 0.40, diversity=0.50), trial(2, 8.0, 0.60, diversity=0.70)]
    middle, dominated = trial(3, 5.5, 0.58, diversity=0.66), trial(4, 5.6, 0.57, diversity=0.65)
    assert choose_by([default, *extremes, middle, dominated], THREE).chosen == 3
    assert choose_by([default, *extremes, middle, dominated], TuneConfig()).chosen == 1
    assert [t.number for t in pareto_front([default, *extremes, middle, dominated], THREE.objectives)] == [1, 2, 3]


def test_on_the_front_too_only_what_beats_the_default_is_taken() -> None:
    default = trial(0, 9.0, 0.4, diversity=0.5)
    by_chance = trial(1, 5.0, 0.9, high=0.1, diversity=0.9)
    alike = trial(2, 5.0, 0.9, diversity=0.47)
    mute = trial(3, 5.0, 0.37, diversity=0.9)
    assert choose_by([default, by_chance, alike, mute], THREE).chosen == 0
    modest = trial(4, 8.5, 0.41, diversity=0.49)
    assert choose_by([default, by_chance, alike, mute, modest], THREE).chosen == 4


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ('tune.objectives=["adherence"]', "must begin with frechet"),
        ('tune.objectives=["frechet","frechet"]', "name none twice"),
        ('tune.objectives=["frechet","fidelity"]', "fidelity"),
    ],
)
def test_objectives_that_make_no_sense_are_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load("ci", [override])


def test_stopping_trials_needs_one_objective_and_steps_to_stop_at() -> None:
    with pytest.raises(ConfigError, match="rungs 1 stop trials by one objective, and there are 2"):
        load("ci", ['tune.objectives=["frechet","adherence"]', "tune.rungs=1", "tune.steps=5"])
    with pytest.raises(ConfigError, match="rungs 5 do not fit into the 5 steps"):
        load("ci", ["tune.rungs=5", "tune.steps=5"])
