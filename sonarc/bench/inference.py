"""Target `inference`: seconds of audio a second of compute, from the last run's champion package.

The floor is arithmetic: the operations of the matrix products and convolutions for one clip, done
at the rate a large bf16 matrix product reaches on this machine now. Nothing can be faster than that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from sonarc.bench.sheet import BenchRow, BenchSheet, measured
from sonarc.contracts.machine import this_machine
from sonarc.contracts.result import recorded_versions

if TYPE_CHECKING:
    from sonarc.runtime.generator import Generator

STEPS = (8, 4, 2, 1)
REPEATS = 5
MATRIX = 1_536
"""Side of the calibration's matrices: large enough to be bound by arithmetic, small enough for a second."""
WANTED_REALTIME = 1.0
"""At 4 steps, one clip at a time, a sound takes no longer to make than to hear."""
PROMPT = "a slow fiddle tune in D major"


def measure(package_uri: str, step_counts: Sequence[int] = STEPS, repeats: int = REPEATS) -> BenchSheet:
    """Time one clip at a time with the package at `package_uri`, and what the machine could do at best."""
    import torch

    from sonarc.runtime.generator import Generator

    generator = Generator.load(package_uri)
    seconds = generator.max_seconds
    rate = matmul_rate(repeats)
    rows = [measured("calibration.bf16_matmul", [r / 1e9 for r in rate], "GFLOP/s", "higher")]
    rows += [_realtime(generator, steps, max(rate), repeats) for steps in step_counts]
    rows.append(measured("clip", [seconds], "s", "higher"))
    return BenchSheet(
        name="inference",
        machine=this_machine(),
        versions=recorded_versions() | {"torch_threads": str(torch.get_num_threads())},
        command="make bench ARGS=inference",
        rows=tuple(rows),
    )


def matmul_rate(repeats: int = REPEATS, side: int = MATRIX) -> list[float]:
    """Floating-point operations a second of a bf16 matrix product, one figure a repeat."""
    import torch

    a, b = (torch.randn(side, side, dtype=torch.bfloat16) for _ in range(2))
    torch.mm(a, b)  # the first call packs and picks its kernel
    return [2 * side**3 / _timed(lambda: torch.mm(a, b)) for _ in range(repeats)]


def _realtime(generator: Generator, steps: int, flops_a_second: float, repeats: int) -> BenchRow:
    seconds = generator.max_seconds

    def make() -> object:
        return generator.generate([PROMPT], [seconds], [0], steps=steps)

    operations = count_operations(make)
    times = [_timed(make) for _ in range(repeats)]
    return measured(
        f"realtime.steps_{steps}",
        [seconds / t for t in times],
        "s/s",
        "higher",
        wanted=WANTED_REALTIME if steps == 4 else None,
        floor=seconds / (operations / flops_a_second),
    )


def count_operations(work: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products and convolutions in one call of `work`."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


def _timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun
