"""Work on what came from outside, in a process of its own: if it crashes or hangs, it costs one file."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, TimeoutError
from concurrent.futures.process import BrokenProcessPool
from typing import Any, ParamSpec, TypeVar

from sonarc.audio.refusal import Refused
from sonarc.contracts.dataset import Reason

P = ParamSpec("P")
T = TypeVar("T")
START_SECONDS = 120.0


def _ready(work: Callable[..., object]) -> None:
    """Nothing: with it the process starts, and imports what the work needs, outside the work's own time."""


def _end_with(parent: int) -> None:
    """Let this process end once its parent has: one that was killed cannot end it."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class Isolated:
    """One process that works for this one, and is replaced when it dies.

    Args:
        seconds: a call that takes longer counts as hanging.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._pool: ProcessPoolExecutor | None = None

    def __call__(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`work(*args, **kwargs)` there; what it raises is raised here.

        Raises:
            Refused: `crashed` if the process died, or had to be ended, over it.
        """
        if self._pool is None:
            # A fork of a process with threads, as Ray's workers are, may wait for a lock for ever.
            spawn = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(1, spawn, initializer=_end_with, initargs=(os.getpid(),))
            self._pool.submit(_ready, work).result(START_SECONDS)
        running = self._pool.submit(work, *args, **kwargs)
        try:
            return running.result(self._seconds)
        except BrokenProcessPool as error:
            self.close()
            raise Refused(Reason.CRASHED, "the process that decoded it died") from error
        except TimeoutError as error:
            if running.done():  # the work's own
                raise
            self.close()
            raise Refused(Reason.CRASHED, f"it kept a process busy for more than {self._seconds:g} s") from error

    def close(self) -> None:
        """End the process, whatever it is at."""
        if self._pool is None:
            return
        pool, self._pool = self._pool, None
        processes: dict[int, Any] = dict(pool._processes or {})
        for process in processes.values():
            process.kill()
        pool.shutdown(wait=False, cancel_futures=True)
