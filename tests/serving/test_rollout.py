"""Canary and shadow: the candidate gets its share, and no more once it does worse."""

from __future__ import annotations

import asyncio
from itertools import cycle

import pytest
from endpoint import running

from serving.rollout import Rollout
from serving.state import Lineup, ServedModel
from sonarc.contracts.config import ServeConfig

Served = tuple[ServedModel, ServedModel]


def rollout(served: Served, **settings: float) -> Rollout:
    draws = cycle([0.05, 0.5, 0.95])
    made = Rollout(ServeConfig(**({"canary_min_requests": 5} | settings)), lambda: next(draws))  # type: ignore[arg-type]
    made.present(Lineup(champion=served[0], candidate=served[1]))
    return made


def feed(rollout: Rollout, served: Served, *, candidate_s: float = 1.0, failing: int = 0, n: int = 10) -> None:
    for i in range(n):
        rollout.record("champion", served[0].package_sha256, failed=False, seconds=1.0)
        rollout.record("candidate", served[1].package_sha256, failed=i < failing, seconds=candidate_s)


def test_shares_are_kept(served: Served) -> None:
    assert rollout(served, canary_share=0.1).route() == ("candidate", False)
    assert rollout(served, shadow_share=0.6).route() == ("champion", True)
    assert rollout(served).route() == ("champion", False)
    alone = rollout(served, canary_share=1.0)
    alone.present(Lineup(champion=served[0]))
    assert alone.route() == ("champion", False)


def test_as_good_a_candidate_keeps_its_share(served: Served) -> None:
    good = rollout(served, canary_share=1.0)
    feed(good, served, candidate_s=1.2, n=50)
    assert good.route() == ("candidate", False)


@pytest.mark.parametrize("worse", [{"failing": 3}, {"candidate_s": 2.0}])
def test_worse_candidate_gets_no_more_until_another_comes(served: Served, worse: dict[str, float]) -> None:
    bad = rollout(served, canary_share=1.0)
    feed(bad, served, **worse)  # type: ignore[arg-type]
    assert bad.backed_off and bad.route() == ("champion", False)
    feed(bad, served, n=50)
    assert bad.route() == ("champion", False)
    bad.present(Lineup(champion=served[0], candidate=served[1].model_copy(update={"package_sha256": "f" * 64})))
    assert bad.route() == ("candidate", False)


def test_too_few_requests_judge_nobody(served: Served) -> None:
    young = rollout(served, canary_share=1.0)
    feed(young, served, failing=4, n=4)
    assert not young.backed_off


def test_word_of_a_package_that_is_gone_does_not_count(served: Served) -> None:
    other = rollout(served, canary_share=1.0)
    for _ in range(20):
        other.record("candidate", "0" * 64, failed=True, seconds=0)
    assert not other.backed_off


@pytest.mark.anyio
async def test_canary_answers_its_share_and_its_failures_reach_nobody(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(*served, canary_share=1.0, canary_min_requests=3) as endpoint:
        assert (await endpoint.ask()).headers["x-sonarc-model"] == "sonarc/4"
        candidate = endpoint.engine._packages["candidate"].generator

        def broken(*_: object, **__: object) -> None:
            raise RuntimeError("a kick drum")

        monkeypatch.setattr(candidate, "generate", broken)
        answers = [await endpoint.ask({"seed": seed}) for seed in range(6)]
        assert {(a.status_code, a.headers["x-sonarc-model"]) for a in answers} == {(200, "sonarc/3")}
        await endpoint.settled()
        _, told = (await endpoint.client.get("/v1/models")).json()["data"]
        assert "failed" in told["backed_off"]
        assert "sonarc_canary_backed_off 1.0" in (await endpoint.client.get("/metrics")).text
        assert (await endpoint.ask(headers={"x-sonarc-pin": "candidate"})).status_code == 500  # it was asked for


@pytest.mark.anyio
async def test_shadow_is_made_and_never_heard(served: Served) -> None:
    async with running(*served, shadow_share=1.0) as endpoint:
        answers = await asyncio.gather(*(endpoint.ask({"seed": seed}) for seed in range(3)))
        assert {answer.headers["x-sonarc-model"] for answer in answers} == {"sonarc/3"}
        await endpoint.settled()
        assert 'sonarc_requests_total{route="shadow",status="200"} 3.0' in (await endpoint.client.get("/metrics")).text
