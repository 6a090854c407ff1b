"""What a task raises arrives as it was raised, without Ray's account of where."""

from __future__ import annotations

import errno
import os

import pytest

from ray_jobs.parallel import parallel_map
from sonarc.contracts.errors import DataError

pytestmark = pytest.mark.usefixtures("ray_local")


def test_results_come_in_the_order_of_the_items() -> None:
    assert list(parallel_map(lambda n: n * n, range(7), tasks=3)) == [n * n for n in range(7)]


def test_a_full_disk_is_the_systems_own_error() -> None:
    def fill(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError) as caught:
        list(parallel_map(fill, range(2), tasks=2))
    assert caught.value.errno == errno.ENOSPC
    assert str(caught.value) == "[Errno 28] No space left on device"


def test_an_error_of_ours_keeps_its_sentence_and_its_hint() -> None:
    def refuse(_: int) -> None:
        raise DataError("Clip 3 is empty.", "Remove it.")

    with pytest.raises(DataError, match="Clip 3 is empty") as caught:
        list(parallel_map(refuse, [1], tasks=1))
    assert caught.value.hint == "Remove it."
