"""The gate: may this candidate be promoted? A pure function of a score sheet and the configured rules.

It fails closed: a score that is missing, doubled, not finite, without clips, or measured with other
things than what it is compared to, refuses the candidate, and so does a set of rules that decided
nothing. Rules against the champion are skipped, and said to be, only while there is none.
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from sonarc.contracts import store
from sonarc.contracts.config import GateConfig, GateRule
from sonarc.contracts.errors import GateRefused
from sonarc.contracts.scores import Difference, Score, ScoreSheet


class RuleOutcome(BaseModel):
    """How one rule went."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rule: str
    """The rule in words, as `fd_yamnet@4 of the generator minus the base's is below 0`."""
    value: float | None = None
    """What was judged; None when there is no such finite value."""
    low: float | None = None
    high: float | None = None
    bound: float
    passed: bool | None
    """None: skipped, there being no champion to compare with."""
    why: str


class Verdict(BaseModel):
    """`verdict.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    schema_: Literal["sonarc.verdict/1"] = Field(default="sonarc.verdict/1", alias="schema")
    passed: bool
    rules: tuple[RuleOutcome, ...]
    why: str
    """One sentence: what decided."""

    def require(self) -> None:
        """Do nothing if the candidate passed.

        Raises:
            GateRefused: it did not; the message names the rules that failed.
        """
        if not self.passed:
            raise GateRefused(self.why, "Nothing was promoted. The verdict has every rule and its figures.")


class _Unusable(Exception):
    """A score that cannot be judged; the text says why."""


def judge(sheet: ScoreSheet, config: GateConfig, *, champion: bool) -> Verdict:
    """Judge the generator's scores by every rule.

    Args:
        sheet: scores of candidate, base and champion from one evaluation.
        config: the rules.
        champion: whether there is a champion to be compared with; the sheet must then score it.

    Returns:
        The verdict: passed only if every rule that applies holds, and at least one applies.
    """
    outcomes = tuple(_apply(rule, sheet, champion) for rule in config.rules)
    failed = [outcome for outcome in outcomes if outcome.passed is False]
    if failed:
        why = "The gate refused the candidate: " + "; ".join(f"{o.rule}: {o.why}" for o in failed) + "."
    elif not any(outcome.passed for outcome in outcomes):
        why = "The gate refused the candidate: no rule could be applied to it."
    else:
        why = f"All {sum(outcome.passed is True for outcome in outcomes)} rules that apply hold."
    passed = not failed and any(outcome.passed for outcome in outcomes)
    return Verdict(passed=passed, rules=outcomes, why=why)


def write_verdict(uri: str, verdict: Verdict) -> str:
    """Write `verdict.json`; returns its sha256."""
    return store.write_json(uri, verdict.model_dump(mode="json", by_alias=True))


def read_verdict(uri: str) -> Verdict:
    """The verdict at `uri` (the file itself); one that cannot be read does not pass.

    Raises:
        GateRefused: it does not follow its schema.
    """
    try:
        return Verdict.model_validate(store.read_json(uri))
    except ValueError as error:
        raise GateRefused(f"The verdict {uri} does not follow its schema: {error}.", "Run the gate again.") from error


def _apply(rule: GateRule, sheet: ScoreSheet, champion: bool) -> RuleOutcome:
    words = _in_words(rule)
    if rule.versus == "champion" and not champion:
        return RuleOutcome(rule=words, bound=rule.bound, passed=None, why="skipped: there is no champion")
    try:
        value, low, high = _judged(rule, sheet)
    except _Unusable as problem:
        return RuleOutcome(rule=words, bound=rule.bound, passed=False, why=str(problem))
    far = (high if rule.side == "below" else low) if rule.use_interval else value
    assert far is not None
    passed = far < rule.bound if rule.side == "below" else far > rule.bound
    what = "the interval's far end" if rule.use_interval else "the value"
    why = f"{what} {far:.4g} is {'' if passed else 'not '}{rule.side} {rule.bound:.4g}"
    return RuleOutcome(rule=words, value=value, low=low, high=high, bound=rule.bound, passed=passed, why=why)


def _in_words(rule: GateRule) -> str:
    name = f"{rule.metric}@{rule.steps}"
    what = name if rule.versus == "absolute" else f"{name} minus the {rule.versus}'s"
    bound = f"{100 * rule.bound:g} % of it" if rule.relative else f"{rule.bound:g}"
    return f"{what} is {rule.side} {bound}" + (" over its whole interval" if rule.use_interval else "")


def _judged(rule: GateRule, sheet: ScoreSheet) -> tuple[float, float | None, float | None]:
    """Value and interval the rule looks at."""
    candidate = _single(sheet, rule.metric, "generator", rule.steps)
    if rule.versus == "absolute":
        return _interval(candidate, rule.use_interval)
    rivals = _finite(sheet, rule.metric, rule.versus, rule.steps)
    for rival in rivals:
        if not candidate.comparable(rival):
            raise _Unusable(f"the {rule.versus}'s score was measured with another embedder, reference set or count")
    found = [
        d
        for d in sheet.differences
        if (d.metric, d.a, d.b) == (rule.metric, f"generator@{rule.steps}", f"{rule.versus}@{rule.steps}")
    ]
    if len(found) != 1:
        raise _Unusable(f"there are {len(found)} differences to the {rule.versus} at {rule.steps} steps, not one")
    difference = found[0]
    measured_with = (difference.embedder_sha256, difference.reference_sha256)
    if measured_with != (candidate.embedder_sha256, candidate.reference_sha256):
        raise _Unusable(f"the difference to the {rule.versus} was measured with another embedder or reference set")
    value, low, high = _interval(difference, rule.use_interval)
    if not rule.relative:
        return value, low, high
    theirs = candidate.value - value  # of several at equal steps, the one that the difference was taken to
    if theirs <= 0 or not math.isfinite(value / theirs):
        raise _Unusable(f"there is no share of the {rule.versus}'s {theirs:.4g}")
    return value / theirs, None if low is None else low / theirs, None if high is None else high / theirs


def _single(sheet: ScoreSheet, metric: str, model: str, steps: int) -> Score:
    scores = _finite(sheet, metric, model, steps)
    if len(scores) > 1:
        raise _Unusable(f"the {model} has {len(scores)} scores of {metric} at {steps} steps, not one")
    return scores[0]


def _finite(sheet: ScoreSheet, metric: str, model: str, steps: int) -> list[Score]:
    """All scores of that name; none, or one that is not finite or without clips, is unusable."""
    scores = [s for s in sheet.scores if (s.metric, s.model, s.steps) == (metric, model, steps)]
    if not scores:
        raise _Unusable(f"the {model} has no score of {metric} at {steps} steps")
    for score in scores:
        if not math.isfinite(score.value):
            raise _Unusable(f"the {model}'s {metric} at {steps} steps is {score.value}")
        if score.n < 1:
            raise _Unusable(f"the {model}'s {metric} at {steps} steps was measured on no clip")
    return scores


def _interval(measured: Score | Difference, needed: bool) -> tuple[float, float | None, float | None]:
    value, low, high = measured.value, measured.low, measured.high
    if not math.isfinite(value):
        raise _Unusable(f"the value is {value}")
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        if needed:
            raise _Unusable(f"its interval is ({low}, {high})")
        return value, None, None
    if low > high:
        raise _Unusable(f"its interval ({low}, {high}) is upside down")
    return value, low, high
