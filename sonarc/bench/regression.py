"""Whether a measurement is worse than the committed one by more than two machines, or two hours, explain.

Times and rates are compared as ratios to the calibration of their own sheet: a machine that multiplies matrices half as
fast may take twice as long.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sonarc.bench.sheet import BenchRow, BenchSheet

TOLERANCE = 1.25
"""A row may be so much worse: medians on shared machines differ by a fifth from one hour to the next."""
_TIMES, _RATES = ("s", "ms"), ("s/s", "clips/s")


@dataclass(frozen=True)
class Worse:
    """A row that got worse.

    Attributes:
        expected: the committed figure, at this machine's speed.
        factor: how many times worse it is.
    """

    row: BenchRow
    expected: float
    factor: float


def worse(before: BenchSheet, now: BenchSheet, tolerance: float = TOLERANCE) -> list[Worse]:
    """The rows of both sheets that got worse by more than `tolerance`, the worst first."""
    known = {row.name: row for row in before.rows}
    found = []
    for row in now.rows:
        if row.name not in known or "calibration" in row.name:
            continue
        speed = _calibration(now, row) / _calibration(before, row)
        expected = known[row.name].value * {**dict.fromkeys(_TIMES, 1 / speed), **dict.fromkeys(_RATES, speed)}.get(
            row.unit, 1.0
        )
        if min(expected, row.value) <= 0:
            continue
        factor = row.value / expected if row.better == "lower" else expected / row.value
        if factor > tolerance:
            found.append(Worse(row, expected, factor))
    return sorted(found, key=lambda one: -one.factor)


def _calibration(sheet: BenchSheet, row: BenchRow) -> float:
    """The matrix product's rate that was measured with a row: its own model's where there is one, else the sheet's."""
    rates: Mapping[str, float] = {r.name: r.value for r in sheet.rows if r.name.endswith("calibration.bf16_matmul")}
    own = f"{row.name.split('_')[0]}_calibration.bf16_matmul"
    return rates.get(own) or rates.get("calibration.bf16_matmul") or 1.0
