"""Votes: what is refused, how they are counted, and that MLflow has them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sonarc.contracts.errors import DataError, TrackingError
from sonarc.contracts.votes import Votes, read_votes
from sonarc.tracking import mlflow_client, runs
from sonarc.tracking.listening import Tally, record_votes, tally


def session(choices: list[str], name: str = "00000001", **update: Any) -> dict[str, Any]:
    votes = [{"prompt": f"p{n}", "seed": n, "first": "ab"[n % 2], "choice": c} for n, c in enumerate(choices)]
    contenders = {"a": {"run": "one"}, "b": {"run": "two"}}
    return {"schema": "sonarc.votes/1", "id": name, "variant": "generator@4", "votes": votes, **contenders, **update}


@given(st.lists(st.sampled_from(["a", "b", "tie"]), min_size=1, max_size=30))
def test_every_vote_counts_once_and_both_sides_agree(choices: list[str]) -> None:
    votes = Votes.model_validate(session(choices))
    mine, theirs = tally([votes, votes], "one"), tally([votes], "two")
    assert mine == Tally(choices.count("a"), choices.count("b"), choices.count("tie"), 1)
    assert (theirs.wins, theirs.losses, theirs.ties) == (mine.losses, mine.wins, mine.ties)
    assert mine.p == pytest.approx(theirs.p) and 0 < mine.p <= 1


def test_the_sign_test_knows_its_textbook_values() -> None:
    assert Tally(8, 0, 5, 1).p == pytest.approx(2 / 2**8)
    assert Tally(5, 5, 0, 1).p == 1.0
    assert Tally(0, 0, 7, 1).p == 1.0


@pytest.mark.parametrize(
    ("update", "said"),
    [
        ({"votes": []}, "no vote"),
        ({"b": {"run": "one"}}, "compared with itself"),
        ({"a": {"run": "../../etc"}}, "a.run"),
        ({"votes": [{"prompt": "p", "seed": 1, "first": "a", "choice": "c"}]}, "choice"),
        ({"votes": [{"prompt": "p", "seed": 1, "first": "a", "choice": "a"}] * 2}, "voted on twice"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_votes_that_nobody_can_have_given_are_refused(tmp_path: Path, update: dict[str, Any], said: str) -> None:
    path = tmp_path / "votes.json"
    path.write_text(json.dumps(session(["a"], **update)))
    with pytest.raises(DataError, match=said):
        read_votes(path)


def test_sessions_add_up_in_mlflow_and_none_counts_twice(tracking_uri: str) -> None:
    ids = {name: runs.open_parent(tracking_uri, "tests", name, {}, {}).parent_run_id for name in ("one", "two")}
    contenders = {side: {"run": name, "mlflow_run_id": ids[name]} for side, name in (("a", "one"), ("b", "two"))}
    first = Votes.model_validate(session(["a", "a", "tie"], "00000001", **contenders))
    second = Votes.model_validate(session(["a", "b"], "00000002", **contenders))
    record_votes(tracking_uri, first, 1_000)
    record_votes(tracking_uri, first, 2_000)
    assert record_votes(tracking_uri, second, 3_000) == Tally(3, 1, 1, 2)
    client = mlflow_client.client(tracking_uri)
    one, two = (client.get_run(ids[name]).data.metrics for name in ("one", "two"))
    assert (one["listening/two/wins"], two["listening/one/wins"], one["listening/two/ties"]) == (3, 1, 1)
    assert one["listening/two/p"] == pytest.approx(two["listening/one/p"]) == pytest.approx(0.625)
    assert len(client.list_artifacts(ids["one"], "listening/two")) == 2


def test_votes_on_a_run_that_was_not_tracked_are_refused(tracking_uri: str) -> None:
    with pytest.raises(TrackingError, match="run one is in no MLflow"):
        record_votes(tracking_uri, Votes.model_validate(session(["a"])), 0)
