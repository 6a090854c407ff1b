"""Dynamic batching: what waits together, and may be made together, is made together. No ray, no torch.

    batcher = Batcher(run, max_batch=8, wait_s=0.01, max_waiting=64)
    outcomes = await batcher.submit(group, items, deadline=time.monotonic() + 60)

Items of one group form a batch, the oldest item first. `run(items, before_step)` works in one thread of its own and
calls `before_step` whenever it could stop. Who cancels `submit`, or lets its deadline pass, frees its places: an item
that was not begun is never begun, and a batch that nobody waits for any more is left at its next step. Where a batch
fails its items are tried one by one, so that a poisoned one fails alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_SMOOTHING = 0.2
"""Weight of the newest batch in the mean time of a batch."""


class QueueFull(Exception):
    """No place is free.

    Args:
        retry_after_s: seconds until one will probably be.
    """

    def __init__(self, retry_after_s: int) -> None:
        super().__init__("every place in the queue is taken")
        self.retry_after_s = retry_after_s


class DeadlinePassed(Exception):
    """The item was not made in time."""


class Abandoned(Exception):
    """Raised inside `run` between two steps when nobody waits for the batch any more."""


@dataclass(frozen=True)
class Outcome(Generic[Result]):
    """One item's result and how it came about.

    Attributes:
        result: what `run` returned for it.
        waited_s: time in the queue, seconds.
        run_s: time of the batch it was made in, seconds.
        batch: items in that batch.
    """

    result: Result
    waited_s: float
    run_s: float
    batch: int


@dataclass(eq=False)
class _Place(Generic[Item, Result]):
    item: Item
    group: Hashable
    deadline: float
    spare: bool
    on_step: Callable[[int], None] | None
    future: asyncio.Future[Outcome[Result]]
    since: float = field(default_factory=time.monotonic)

    @property
    def wanted(self) -> bool:
        return not self.future.done() and time.monotonic() < self.deadline

    def settle(self, outcome: Outcome[Result] | Exception) -> None:
        if self.future.done():
            return
        if isinstance(outcome, Exception):
            self.future.set_exception(outcome)
        else:
            self.future.set_result(outcome)


class Batcher(Generic[Item, Result]):
    """One worker, one queue.

    Args:
        run: makes a batch in a thread; `before_step` raises `Abandoned` when the batch may be left.
        max_batch: items of a batch.
        wait_s: how long an item waits for company while the worker is idle, seconds.
        max_waiting: places in the queue.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Item], Callable[[], None]], Sequence[Result]],
        *,
        max_batch: int,
        wait_s: float,
        max_waiting: int,
    ) -> None:
        self._run, self._max_batch, self._wait_s, self._max_waiting = run, max_batch, wait_s, max_waiting
        self._queue: deque[_Place[Item, Result]] = deque()
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batch")
        self._worker: asyncio.Task[None] | None = None
        self._batch_s = 0.0

    @property
    def waiting(self) -> int:
        """Items in the queue that somebody waits for."""
        return sum(place.wanted and not place.spare for place in self._queue)

    async def submit(
        self,
        group: Hashable,
        items: Sequence[Item],
        *,
        deadline: float,
        spare: bool = False,
        on_step: Callable[[int], None] | None = None,
    ) -> list[Outcome[Result]]:
        """Have some items made; all of them, or none.

        Args:
            group: only items of equal groups share a batch.
            deadline: when they must be made, by `time.monotonic()`.
            spare: made only while nothing else waits.
            on_step: called in the worker's thread before step n, counted from 0, of each batch with one of the items.

        Raises:
            QueueFull: fewer places are free than there are items. DeadlinePassed: it took too long. Otherwise what
            `run` raised for one of the items.
        """
        room = self._max_batch if spare else self._max_waiting
        taken = sum(place.wanted and place.spare == spare for place in self._queue)
        if taken + len(items) > room:
            raise QueueFull(self.retry_after_s())
        loop = asyncio.get_running_loop()
        if self._worker is None or self._worker.done():
            self._worker = loop.create_task(self._work())
        places: list[_Place[Item, Result]] = [
            _Place(item, group, deadline, spare, on_step, loop.create_future()) for item in items
        ]
        self._queue.extend(places)
        self._arrived.set()
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                return list(await asyncio.gather(*(place.future for place in places)))
        except TimeoutError as error:
            raise DeadlinePassed from error
        finally:
            for place in places:  # one of them failed, or the caller has gone: nobody wants the others
                if not place.future.cancel() and not place.future.cancelled():
                    place.future.exception()
            self._forget_unwanted()

    def retry_after_s(self) -> int:
        """Whole seconds until a queue of the present length has probably been made."""
        return max(1, math.ceil(self._batch_s * math.ceil(len(self._queue) / self._max_batch)))

    async def close(self) -> None:
        """End the worker; whoever waits is cancelled."""
        if self._worker is not None:
            self._worker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._worker
        for place in self._queue:
            place.future.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _work(self) -> None:
        while True:
            while (first := self._oldest()) is None:
                self._arrived.clear()
                await self._arrived.wait()
            await self._company(first)
            if batch := self._take(first.group, spare=first.spare):
                await self._make(batch)

    def _oldest(self) -> _Place[Item, Result] | None:
        self._forget_unwanted()
        return min(self._queue, key=lambda place: (place.spare, place.since), default=None)

    async def _company(self, first: _Place[Item, Result]) -> None:
        until = first.since + self._wait_s
        while (left := until - time.monotonic()) > 0:
            if sum(place.group == first.group for place in self._queue) >= self._max_batch:
                return
            self._arrived.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._arrived.wait()

    def _take(self, group: Hashable, *, spare: bool) -> list[_Place[Item, Result]]:
        self._forget_unwanted()
        alike = [place for place in self._queue if place.group == group and place.spare == spare][: self._max_batch]
        for place in alike:
            self._queue.remove(place)
        return alike

    def _forget_unwanted(self) -> None:
        self._queue = deque(place for place in self._queue if place.wanted)

    async def _make(self, batch: list[_Place[Item, Result]]) -> None:
        begun = time.monotonic()
        outcomes = await asyncio.get_running_loop().run_in_executor(self._thread, self._attempt, batch)
        for place, outcome in zip(batch, outcomes, strict=True):
            place.settle(outcome)
        took = time.monotonic() - begun
        self._batch_s = took if self._batch_s == 0 else (1 - _SMOOTHING) * self._batch_s + _SMOOTHING * took

    def _attempt(self, batch: list[_Place[Item, Result]]) -> list[Outcome[Result] | Exception]:
        """In the worker's thread: results in the batch's order, or for each item what went wrong with it."""
        begun = time.monotonic()
        step = 0

        def before_step() -> None:
            nonlocal step
            if not any(place.wanted for place in batch):
                raise Abandoned
            for place in batch:
                if place.on_step is not None:
                    place.on_step(step)
            step += 1

        try:
            results = self._run([place.item for place in batch], before_step)
            took = time.monotonic() - begun
            return [
                Outcome(result, begun - place.since, took, len(batch))
                for place, result in zip(batch, results, strict=True)
            ]
        except Abandoned:
            return [DeadlinePassed() for _ in batch]
        except Exception as error:
            if len(batch) == 1:
                return [error]
            return [outcome for place in batch for outcome in self._alone(place)]

    def _alone(self, place: _Place[Item, Result]) -> list[Outcome[Result] | Exception]:
        return self._attempt([place]) if place.wanted else [DeadlinePassed()]
