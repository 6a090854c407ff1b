"""What a machine could do at best: the operations of a work, and the rate at which it does them."""

from __future__ import annotations

import time
from collections.abc import Callable

MATRIX = 1_536
"""Side of the calibration's matrices: large enough to be bound by arithmetic, small enough for a second."""


def matmul_rate(repeats: int = 5, side: int = MATRIX) -> list[float]:
    """Floating-point operations a second of a bf16 matrix product, one figure a repeat."""
    import torch

    a, b = (torch.randn(side, side, dtype=torch.bfloat16) for _ in range(2))
    return [2 * side**3 / seconds for seconds in seconds_of(lambda: torch.mm(a, b), repeats)]


def count_operations(work: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products and convolutions in one call of `work`."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


def seconds_of(work: Callable[[], object], repeats: int) -> list[float]:
    """Wall seconds of each of `repeats` calls; one more before them, in which caches fill, is not counted."""
    work()
    found = []
    for _ in range(repeats):
        begun = time.perf_counter()
        work()
        found.append(time.perf_counter() - begun)
    return found
