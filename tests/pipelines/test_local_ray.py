"""A head that does not come up at once: what is tried again, and what is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from pipelines.local_ray import ATTEMPTS, brought_up
from sonarc.contracts.errors import StageError


def failing(times: int, ended: list[int]) -> Callable[[], AbstractContextManager[str]]:
    """A start that fails so many times; `ended` gets the number of each try that has been cleared away."""
    begun: list[int] = []

    @contextmanager
    def start() -> Iterator[str]:
        begun.append(len(begun) + 1)
        try:
            if len(begun) <= times:
                raise StageError(f"Try {len(begun)} failed.", "")
            yield f"try {len(begun)}"
        finally:
            ended.append(begun[-1])

    return start


def test_a_head_that_did_not_come_up_is_cleared_away_and_tried_again() -> None:
    ended: list[int] = []
    with brought_up(failing(ATTEMPTS - 1, ended)) as found:
        assert found == f"try {ATTEMPTS}"
        assert ended == list(range(1, ATTEMPTS))
    assert ended == list(range(1, ATTEMPTS + 1))


def test_the_last_try_says_why() -> None:
    with pytest.raises(StageError, match=f"Try {ATTEMPTS} failed"), brought_up(failing(ATTEMPTS, [])):
        pass


def test_an_error_of_the_run_is_no_reason_to_try_again() -> None:
    ended: list[int] = []
    with pytest.raises(StageError, match="the run's own"), brought_up(failing(0, ended)):
        raise StageError("the run's own", "")
    assert ended == [1]
