"""Bounded parallel work on Ray, and errors that arrive as they were raised."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError

from sonarc.contracts.errors import SonarcError

T = TypeVar("T")
R = TypeVar("R")


@contextmanager
def plain_errors() -> Iterator[None]:
    """Raise the `SonarcError` or `OSError` inside Ray's wrapping: the user reads one sentence, no traceback."""
    try:
        yield
    except RayError as error:
        seen: BaseException | None = error
        # Ray's wrapping of an OSError is one too, with the traceback as its text.
        while isinstance(seen, RayError) or (seen is not None and not isinstance(seen, (SonarcError, OSError))):
            seen = getattr(seen, "cause", None) or seen.__cause__
        if seen is None:
            raise
        raise seen from error


def parallel_map(function: Callable[[T], R], items: Iterable[T], *, tasks: int) -> Iterator[R]:
    """`map` over Ray tasks of one CPU each: at most `tasks` of them at once, results in the order of `items`."""

    def call(item: T) -> R:  # Ray takes plain functions only; `function` may be a partial
        return function(item)

    remote = ray.remote(num_cpus=1)(call)
    waiting = enumerate(items)
    running: dict[Any, int] = {}
    finished: dict[int, R] = {}
    following = 0
    with plain_errors():
        while True:
            for number, item in islice(waiting, tasks - len(running)):
                running[remote.remote(item)] = number
            if not running:
                return
            (reference,), _ = ray.wait(list(running), num_returns=1)
            finished[running.pop(reference)] = ray.get(reference)
            while following in finished:
                yield finished.pop(following)
                following += 1
