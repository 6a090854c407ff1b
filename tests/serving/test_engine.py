"""A generator replica: a seed's sound, packages taken while work is under way, and what cannot be made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest

from serving.engine import Engine
from serving.state import Lineup, ServedModel
from serving.work import Clip, Failed, Made, Progress, Sound, Work
from sonarc.contracts.config import ServeConfig
from sonarc.contracts.errors import CheckpointError

pytestmark = pytest.mark.anyio

Served = tuple[ServedModel, ServedModel]


def work(*seeds: int, seconds: float = 0.5, prompt: str = "a kick drum", **fields: object) -> Work:
    clips = tuple(Clip(prompt, seconds, seed) for seed in seeds)
    return Work(clips, **({"steps": 2, "slot": "champion", "timeout_s": 30.0} | fields))  # type: ignore[arg-type]


def noise_db(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(np.sum((a - b) ** 2) / np.sum(a**2) + 1e-20))


async def made(engine: Engine, asked: Work) -> Made:
    outcome = await engine.make(asked)
    assert isinstance(outcome, Made), outcome
    return outcome


@pytest.fixture
async def engine(served: Served) -> AsyncIterator[Engine]:
    engine = Engine(ServeConfig(threads=1, max_batch=4, max_queued=8, batch_wait_s=0.05))
    await engine.load(Lineup(champion=served[0]))
    yield engine
    await engine.close()


async def test_seed_is_bit_equal_alone_and_the_same_sound_in_any_company(engine: Engine) -> None:
    alone, again = [await made(engine, work(3)) for _ in range(2)]
    assert np.array_equal(alone.audio[0], again.audio[0])
    company = (work(9, prompt="bells", seconds=0.45), work(3), work(5, 6, prompt="a flute", seconds=0.4))
    together = await asyncio.gather(*(made(engine, asked) for asked in company))
    assert {one.batch for one in together} == {4}
    assert noise_db(alone.audio[0], together[1].audio[0]) < -40
    assert noise_db(together[2].audio[0], together[2].audio[1]) > -20


async def test_only_alike_requests_share_a_batch(engine: Engine) -> None:
    unlike = (work(1), work(2, steps=3), work(3, seconds=0.1))
    assert {one.batch for one in await asyncio.gather(*(made(engine, asked) for asked in unlike))} == {1}


async def test_poisoned_request_fails_alone(engine: Engine) -> None:
    poisoned = work(1, prompt="\ud800")
    one, bad, two = await asyncio.gather(engine.make(work(2)), engine.make(poisoned), engine.make(work(3)))
    assert isinstance(one, Made) and isinstance(two, Made)
    assert bad == Failed("broken", problem="ModelInputError")


async def test_sound_to_begin_from_is_heard_again(engine: Engine) -> None:
    tone_AS = 0.3 * np.sin(2 * np.pi * 440 * np.arange(22_050) / 44_100).astype(np.float32) * np.ones((2, 1), "f")
    kept = await made(engine, work(1, 2, sound=Sound(tone_AS, 1.0, (0.0, 9.0))))
    assert kept.batch == 2
    np.testing.assert_allclose(kept.audio[0], kept.audio[1], atol=0.02)  # whatever the seed


async def test_packages_are_taken_together_and_kept_when_one_is_wrong(engine: Engine, served: Served) -> None:
    before = await made(engine, work(1))
    under_way = asyncio.create_task(made(engine, work(1, steps=20)))
    await asyncio.sleep(0.1)
    await engine.load(Lineup(champion=served[1], candidate=served[0]))
    assert (await under_way).served == served[0]
    info = await engine.info()
    assert info is not None and info.candidate is not None
    assert (info.champion.served, info.candidate.served) == (served[1], served[0])
    now, candidate = await made(engine, work(1)), await made(engine, work(1, slot="candidate"))
    assert now.served == served[1] and noise_db(before.audio[0], now.audio[0]) > -20
    assert np.array_equal(before.audio[0], candidate.audio[0])
    wrong = served[0].model_copy(update={"package_sha256": "0" * 64})
    with pytest.raises(CheckpointError):
        await engine.load(Lineup(champion=wrong))
    assert await engine.info() == info


async def test_absent_candidate_and_full_queue_are_told(engine: Engine) -> None:
    assert await engine.make(work(1, slot="candidate")) == Failed("absent")
    full = await engine.make(work(*range(9)))
    assert isinstance(full, Failed) and full.reason == "queue_full"
    late = await engine.make(work(1, steps=400, timeout_s=0.2))
    assert isinstance(late, Failed) and late.reason == "deadline"


async def test_steps_are_watched(engine: Engine) -> None:
    seen = [event async for event in engine.watch(work(1, steps=400))]
    assert isinstance(seen[-1], Made)
    done = [event.done for event in seen[:-1] if isinstance(event, Progress)]
    assert done and done == sorted(done) and len(done) == len(seen) - 1


async def test_nothing_is_loaded_at_first() -> None:
    engine = Engine(ServeConfig())
    assert await engine.info() is None
    assert await engine.make(work(1)) == Failed("absent")
    await engine.close()
