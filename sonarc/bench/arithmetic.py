"""What a machine could do at best: the operations of a work, and the rate at which it does them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

MATRIX, GPU_MATRIX = 1_536, 8_192
"""Side of the calibration's matrices: large enough to be bound by arithmetic, small enough for a second."""


def matmul_rate(repeats: int = 5, side: int | None = None, device: torch.device | str = "cpu") -> list[float]:
    """Floating-point operations a second of a bf16 matrix product on a device, one figure a repeat."""
    import torch

    from sonarc.runtime.device import wait

    where = torch.device(device)
    n = side or (MATRIX if where.type == "cpu" else GPU_MATRIX)
    a, b = (torch.randn(n, n, dtype=torch.bfloat16, device=where) for _ in range(2))

    def multiply() -> None:
        torch.mm(a, b)
        wait(where)

    return [2 * n**3 / seconds for seconds in seconds_of(multiply, repeats)]


def count_operations(work: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products and convolutions in one call of `work`."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


def seconds_of(work: Callable[[], object], repeats: int, *, before: int = 1) -> list[float]:
    """Wall seconds of each of `repeats` calls; those `before` them, in which caches fill, are not counted."""
    for _ in range(before):
        work()
    found = []
    for _ in range(repeats):
        begun = time.perf_counter()
        work()
        found.append(time.perf_counter() - begun)
    return found
