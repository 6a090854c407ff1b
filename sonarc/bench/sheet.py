"""`bench/<name>.json`: figures with what they were measured on and what was wanted of them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sonarc.contracts import store
from sonarc.contracts.errors import DataError
from sonarc.contracts.machine import Machine


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class BenchRow(_Document):
    """One figure."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")
    value: float = Field(allow_inf_nan=False)
    """The median where it was measured several times."""
    unit: str
    better: Literal["lower", "higher"]
    wanted: float | None = Field(default=None, allow_inf_nan=False)
    """What the project asks for; None: only watched."""
    floor: float | None = Field(default=None, allow_inf_nan=False)
    """What this machine could give at the very best, by calibration or arithmetic; None: not known."""
    n: int = Field(default=1, ge=1)
    """Measurements behind the value."""
    spread: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Largest minus smallest of them; None for a single one."""

    def met(self) -> bool:
        """Whether the value is at least as good as wanted; a row without a wish is always met."""
        if self.wanted is None:
            return True
        return self.value <= self.wanted if self.better == "lower" else self.value >= self.wanted


class BenchSheet(_Document):
    """One benchmark's outcome."""

    schema_: Literal["sonarc.bench/1"] = Field(default="sonarc.bench/1", alias="schema")
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    machine: Machine
    versions: dict[str, str]
    command: str
    """What makes this sheet again."""
    rows: tuple[BenchRow, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _distinct(self) -> BenchSheet:
        names = [row.name for row in self.rows]
        if len(set(names)) != len(names):
            raise ValueError("two rows have one name")
        return self

    def missed(self) -> list[BenchRow]:
        """The rows that are not as good as wanted."""
        return [row for row in self.rows if not row.met()]


def measured(
    name: str,
    values: list[float],
    unit: str,
    better: Literal["lower", "higher"],
    *,
    wanted: float | None = None,
    floor: float | None = None,
) -> BenchRow:
    """A row from repeated measurements: their median, and how far apart they lie."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    median = ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
    return BenchRow(
        name=name,
        value=_rounded(median),
        unit=unit,
        better=better,
        wanted=wanted,
        floor=None if floor is None else _rounded(floor),
        n=len(ordered),
        spread=_rounded(ordered[-1] - ordered[0]) if len(ordered) > 1 else None,
    )


def read_sheet(path: Path) -> BenchSheet:
    """The sheet in a file.

    Raises:
        StoreError: there is none. DataError: it does not follow the schema.
    """
    document: Any = store.read_json(str(path))
    try:
        return BenchSheet.model_validate(document)
    except ValidationError as error:
        raise DataError(f"{path} does not follow sonarc.bench/1: {error}.", "Measure again: make bench.") from error


def write_sheet(folder: Path, sheet: BenchSheet) -> Path:
    """Write `<folder>/<name>.json`; returns its path."""
    path = folder / f"{sheet.name}.json"
    store.write_json(str(path), sheet.model_dump(mode="json", by_alias=True))
    return path


def _rounded(value: float) -> float:
    """Rounded to four significant digits: more is noise and makes every diff long."""
    if value == 0 or not math.isfinite(value):
        return value
    return round(value, 3 - math.floor(math.log10(abs(value))))
