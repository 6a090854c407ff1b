"""What waits together is made together; who leaves frees a place; who is poisoned fails alone."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence

import pytest

from serving.batcher import Abandoned, Batcher, DeadlinePassed, QueueFull

pytestmark = pytest.mark.anyio

LONG_S = 30.0


class Worker:
    """Doubles numbers, in batches that it remembers, one step each of which waits for the gate."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.abandoned = 0
        self.gate = threading.Event()
        self.gate.set()
        self.begun = threading.Event()
        self.steps = 1

    def __call__(self, items: Sequence[int], before_step: Callable[[], None]) -> list[int]:
        self.batches.append(list(items))
        self.begun.set()
        try:
            for _ in range(self.steps):
                before_step()
                assert self.gate.wait(LONG_S)
        except Abandoned:
            self.abandoned += 1
            raise
        if 13 in items:
            raise ValueError("13")
        return [2 * item for item in items]


def batcher(worker: Worker, **settings: float) -> Batcher[int, int]:
    return Batcher(worker, **({"max_batch": 4, "wait_s": 0.02, "max_waiting": 8} | settings))  # type: ignore[arg-type]


def soon(seconds: float = LONG_S) -> float:
    return time.monotonic() + seconds


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.002)


async def test_what_arrives_together_is_one_batch_and_each_gets_its_own() -> None:
    worker = Worker()
    queue = batcher(worker)
    made = await asyncio.gather(*(queue.submit("a", [n], deadline=soon()) for n in range(4)))
    assert [outcome.result for (outcome,) in made] == [0, 2, 4, 6]
    assert worker.batches == [[0, 1, 2, 3]]
    assert {outcome.batch for (outcome,) in made} == {4}
    await queue.close()


async def test_groups_are_not_mixed_and_the_oldest_goes_first() -> None:
    worker = Worker()
    queue = batcher(worker)
    await asyncio.gather(
        queue.submit("a", [1], deadline=soon()),
        queue.submit("b", [2, 3], deadline=soon()),
        queue.submit("a", [4], deadline=soon()),
    )
    assert worker.batches == [[1, 4], [2, 3]]
    await queue.close()


async def test_more_than_a_batch_is_several() -> None:
    worker = Worker()
    queue = batcher(worker)
    outcomes = await queue.submit("a", list(range(6)), deadline=soon())
    assert [outcome.result for outcome in outcomes] == [0, 2, 4, 6, 8, 10]
    assert worker.batches == [[0, 1, 2, 3], [4, 5]]
    await queue.close()


async def test_poisoned_item_fails_alone() -> None:
    worker = Worker()
    queue = batcher(worker)
    one, poisoned, two = await asyncio.gather(
        *(queue.submit("a", [n], deadline=soon()) for n in (1, 13, 2)), return_exceptions=True
    )
    assert isinstance(poisoned, ValueError)
    assert not isinstance(one, BaseException) and not isinstance(two, BaseException)
    assert (one[0].result, two[0].result) == (2, 4)
    assert worker.batches == [[1, 13, 2], [1], [13], [2]]
    assert (await queue.submit("a", [5], deadline=soon()))[0].result == 10  # and the next batch is as any
    await queue.close()


async def test_full_queue_refuses_at_once_and_knows_when_to_come_back() -> None:
    worker = Worker()
    worker.gate.clear()
    queue = batcher(worker, max_waiting=2, max_batch=1, wait_s=0)
    running = asyncio.create_task(queue.submit("a", [1], deadline=soon()))
    await until(worker.begun.is_set)
    waiting = asyncio.create_task(queue.submit("a", [2, 3], deadline=soon()))
    await until(lambda: queue.waiting == 2)
    with pytest.raises(QueueFull) as caught:
        await queue.submit("a", [4], deadline=soon())
    assert caught.value.retry_after_s >= 1
    worker.gate.set()
    await asyncio.gather(running, waiting)
    await queue.close()


async def test_who_leaves_before_its_turn_is_never_begun_and_frees_its_place() -> None:
    worker = Worker()
    worker.gate.clear()
    queue = batcher(worker, max_waiting=1, max_batch=1, wait_s=0)
    running = asyncio.create_task(queue.submit("a", [1], deadline=soon()))
    await until(worker.begun.is_set)
    gone = asyncio.create_task(queue.submit("a", [2], deadline=soon()))
    await until(lambda: queue.waiting == 1)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    other = asyncio.create_task(queue.submit("a", [3], deadline=soon()))
    worker.gate.set()
    await asyncio.gather(running, other)
    assert worker.batches == [[1], [3]]
    await queue.close()


async def test_batch_that_nobody_waits_for_is_left_at_its_next_step() -> None:
    worker = Worker()
    worker.gate.clear()
    worker.steps = 2
    queue = batcher(worker, wait_s=0)
    task = asyncio.create_task(queue.submit("a", [1], deadline=soon()))
    await until(worker.begun.is_set)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    worker.gate.set()
    await until(lambda: worker.abandoned == 1)
    assert (await queue.submit("a", [2], deadline=soon()))[0].result == 4
    await queue.close()


async def test_batch_goes_on_for_those_who_stay() -> None:
    worker = Worker()
    worker.gate.clear()
    worker.steps = 3
    queue = batcher(worker)
    leaves, stays = (asyncio.create_task(queue.submit("a", [n], deadline=soon())) for n in (1, 2))
    await until(worker.begun.is_set)
    leaves.cancel()
    worker.gate.set()
    assert (await stays)[0].result == 4
    assert worker.abandoned == 0
    await queue.close()


async def test_deadline_passes_for_what_waits_and_for_what_runs() -> None:
    worker = Worker()
    worker.gate.clear()
    worker.steps = 2
    queue = batcher(worker, max_batch=1, wait_s=0)
    tasks = [asyncio.create_task(queue.submit("a", [n], deadline=soon(0.1))) for n in (1, 2)]
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(outcome, DeadlinePassed)
    worker.gate.set()
    await until(lambda: worker.abandoned == 1)
    assert worker.batches == [[1]]
    await queue.close()


async def test_spare_work_is_done_only_when_nothing_else_waits() -> None:
    worker = Worker()
    worker.gate.clear()
    queue = batcher(worker, max_batch=1, wait_s=0)
    tasks = [asyncio.create_task(queue.submit("a", [1], deadline=soon()))]
    await until(worker.begun.is_set)
    tasks.append(asyncio.create_task(queue.submit("a", [9], deadline=soon(), spare=True)))
    await asyncio.sleep(0)
    tasks += [asyncio.create_task(queue.submit("a", [n], deadline=soon())) for n in (2, 3)]
    await asyncio.sleep(0)
    worker.gate.set()
    await asyncio.gather(*tasks)
    assert worker.batches == [[1], [2], [3], [9]]
    await queue.close()


async def test_steps_are_told() -> None:
    worker = Worker()
    told: list[int] = []
    worker.steps = 3
    queue = batcher(worker)
    await queue.submit("a", [1], deadline=soon(), on_step=told.append)
    assert told == [0, 1, 2]
    await queue.close()
