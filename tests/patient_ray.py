"""Ray, started as often as it takes: its own waits are fixed, and on a busy machine they can be too short."""

from __future__ import annotations

import contextlib
from typing import Any

import psutil

ATTEMPTS = 3


def start_ray(**options: Any) -> None:
    """A Ray of this process's own, without a dashboard.

    Args:
        options: of `ray.init`.
    """
    import ray

    for attempt in range(ATTEMPTS):
        before = set(psutil.Process().children(recursive=True))
        try:
            ray.init(address="local", include_dashboard=False, **options)
            return
        except Exception:
            ray.shutdown()
            for process in set(psutil.Process().children(recursive=True)) - before:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            if attempt + 1 == ATTEMPTS:
                raise
