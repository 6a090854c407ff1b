"""The gate passes what every rule allows, and nothing else."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sonarc.contracts.config import GateConfig, GateRule
from sonarc.contracts.errors import GateRefused
from sonarc.contracts.scores import Difference, Score, ScoreSheet
from sonarc.tracking.gate import judge, read_verdict, write_verdict

FD = "fd_yamnet"
VERSUS_BASE = GateConfig(rules=(GateRule(metric=FD, versus="base", use_interval=True),))
VERSUS_CHAMPION = GateConfig(
    rules=(GateRule(metric="silent_fraction", bound=0.01), GateRule(metric=FD, versus="champion", bound=2.0))
)


def score(model: str, value: float, *, metric: str = FD, **other: object) -> Score:
    fields = {"steps": 4, "n": 100, "n_real": 200, "embedder_sha256": "e", "reference_sha256": "r"} | other
    return Score.model_validate({"metric": metric, "model": model, "value": value} | fields)


def difference(rival: str, value: float, low: float, high: float, **other: object) -> Difference:
    fields = {"metric": FD, "n": 100, "embedder_sha256": "e", "reference_sha256": "r"} | other
    return Difference.model_validate(
        {"a": "generator@4", "b": f"{rival}@4", "value": value, "low": low, "high": high} | fields
    )


SILENT = score("generator", 0.0, metric="silent_fraction", embedder_sha256="", reference_sha256="")
GOOD = ScoreSheet(
    scores=(score("generator", 5.0), score("base", 9.0, cfg=1.0), score("base", 8.0, cfg=2.5), SILENT),
    differences=(difference("base", -3.0, -4.0, -2.0),),
)


def edited(sheet: ScoreSheet, index: int, **changes: object) -> ScoreSheet:
    scores = list(sheet.scores)
    scores[index] = scores[index].model_copy(update=changes)
    return sheet.model_copy(update={"scores": tuple(scores)})


def test_better_than_the_base_passes() -> None:
    verdict = judge(GOOD, VERSUS_BASE, champion=False)
    assert verdict.passed
    (rule,) = verdict.rules
    assert (rule.value, rule.low, rule.high, rule.bound) == (-3.0, -4.0, -2.0, 0.0)
    verdict.require()


def test_interval_that_holds_zero_is_refused_by_name() -> None:
    sheet = GOOD.model_copy(update={"differences": (difference("base", -3.0, -4.0, 0.5),)})
    verdict = judge(sheet, VERSUS_BASE, champion=False)
    with pytest.raises(GateRefused, match="fd_yamnet@4 minus the base's is below 0"):
        verdict.require()


@pytest.mark.parametrize(
    "sheet",
    [
        ScoreSheet(),
        GOOD.model_copy(update={"differences": ()}),
        GOOD.model_copy(update={"differences": GOOD.differences * 2}),
        GOOD.model_copy(update={"differences": (difference("base", -3.0, math.nan, -2.0),)}),
        GOOD.model_copy(update={"differences": (difference("base", -math.inf, -math.inf, -2.0),)}),
        GOOD.model_copy(update={"differences": (difference("base", -3.0, -2.0, -4.0),)}),
        GOOD.model_copy(update={"differences": (difference("base", -3.0, -4.0, -2.0, reference_sha256="x"),)}),
        GOOD.model_copy(update={"scores": GOOD.scores[1:]}),
        GOOD.model_copy(update={"scores": (GOOD.scores[0], *GOOD.scores)}),
        edited(GOOD, 0, value=math.nan),
        edited(GOOD, 0, value=-math.inf),
        edited(GOOD, 0, n=0),
        edited(GOOD, 1, value=math.nan),
        edited(GOOD, 1, reference_sha256="another"),
        edited(GOOD, 2, embedder_sha256="another"),
        edited(GOOD, 2, n=99),
    ],
)
def test_what_cannot_be_judged_is_refused(sheet: ScoreSheet) -> None:
    verdict = judge(sheet, VERSUS_BASE, champion=False)
    assert not verdict.passed
    assert verdict.rules[0].why


def test_without_champion_its_rules_are_skipped_and_said_to_be() -> None:
    verdict = judge(GOOD, VERSUS_CHAMPION, champion=False)
    assert verdict.passed
    assert [rule.passed for rule in verdict.rules] == [True, None]
    assert "no champion" in verdict.rules[1].why


def test_champion_that_was_not_scored_refuses() -> None:
    assert not judge(GOOD, VERSUS_CHAMPION, champion=True).passed


@pytest.mark.parametrize(("value", "passes"), [(1.9, True), (2.0, False), (2.1, False)])
def test_champion_may_be_missed_by_less_than_the_bound(value: float, passes: bool) -> None:
    sheet = ScoreSheet(
        scores=(*GOOD.scores, score("champion", 5.0)),
        differences=(*GOOD.differences, difference("champion", value, 0.0, 9.0)),
    )
    assert judge(sheet, VERSUS_CHAMPION, champion=True).passed is passes


def test_rules_that_decide_nothing_do_not_pass() -> None:
    assert not judge(GOOD, GateConfig(rules=()), champion=False).passed
    assert not judge(GOOD, GateConfig(rules=VERSUS_CHAMPION.rules[1:]), champion=False).passed


@given(value=st.floats(allow_nan=True, allow_infinity=True), bound=st.floats(-1e6, 1e6), above=st.booleans())
def test_absolute_rule_passes_exactly_on_the_right_side(value: float, bound: float, above: bool) -> None:
    rule = GateRule(metric=FD, side="above" if above else "below", bound=bound)
    verdict = judge(ScoreSheet(scores=(score("generator", value),)), GateConfig(rules=(rule,)), champion=False)
    right = value > bound if above else value < bound
    assert verdict.passed is (right and math.isfinite(value))


def test_verdict_is_written_even_for_nan_and_read_back(tmp_path: Path) -> None:
    verdict = judge(edited(GOOD, 0, value=math.nan), VERSUS_BASE, champion=False)
    where = (tmp_path / "verdict.json").as_uri()
    write_verdict(where, verdict)
    assert read_verdict(where) == verdict
    (tmp_path / "verdict.json").write_text('{"passed": true}')
    with pytest.raises(GateRefused):
        read_verdict(where)


@pytest.mark.parametrize(("bound", "passes"), [(-0.3, True), (-0.4, False)])
def test_a_difference_may_be_judged_as_a_share(bound: float, passes: bool) -> None:
    rule = GateRule(metric=FD, versus="base", relative=True, bound=bound)
    verdict = judge(GOOD, GateConfig(rules=(rule,)), champion=False)
    assert verdict.passed is passes
    (outcome,) = verdict.rules
    assert (outcome.value, outcome.low, outcome.high) == (-3 / 8, -4 / 8, -2 / 8)
    assert f"below {100 * bound:g} % of it" in outcome.rule


def test_a_share_of_nothing_is_refused() -> None:
    rule = GateRule(metric=FD, versus="base", relative=True, bound=0.5, side="below")
    sheet = GOOD.model_copy(update={"differences": (difference("base", 5.0, 4.0, 6.0),)})
    assert "no share" in judge(sheet, GateConfig(rules=(rule,)), champion=False).why
    with pytest.raises(ValueError, match="versus=base"):
        GateRule(metric=FD, relative=True)
