"""The scores as rows and columns: one arrangement for the terminal, the report and the README."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sonarc.contracts.scores import ModelName, Score, ScoreSheet, best
from sonarc.report.summary import SANITY

METRICS: dict[str, str] = {
    "adherence": "Adherence",
    "diversity": "Diversity",
    "realtime": "Realtime",
    "precision": "Precision",
    "recall": "Recall",
    "density": "Density",
    "coverage": "Coverage",
}
"""Columns after the distances: name → label."""

SHORT = ("adherence", "diversity", "realtime")
"""The columns kept beside the Fréchet distances where there is little room."""

MODELS: tuple[ModelName, ...] = ("real", "codec", "champion", "base", "generator")
ARROWS = {"lower": "↓", "higher": "↑", "near": "≈"}


@dataclass(frozen=True)
class Column:
    """One metric of the table."""

    metric: str
    label: str
    """For people, with an arrow towards the better side."""
    unit: str


@dataclass(frozen=True)
class Row:
    """One model under one sampling."""

    model: ModelName
    steps: int
    cfg: float
    cells: dict[str, Score]
    """Metric → score; a metric not measured for this row is absent."""

    @property
    def name(self) -> str:
        """The row's name, as `base · 4 steps · CFG 2.5`."""
        parts: list[str] = [MODEL_LABELS[self.model]]
        if self.steps:
            parts.append(f"{self.steps} step{'s' if self.steps > 1 else ''}")
        if self.cfg != 1.0:
            parts.append(f"CFG {self.cfg:g}")
        return " · ".join(parts)

    @property
    def tag(self) -> str:
        """The row's short name, as `base@4 CFG 2.5`."""
        steps = f"@{self.steps}" if self.steps else ""
        return f"{self.model}{steps}{f' CFG {self.cfg:g}' if self.cfg != 1.0 else ''}"


MODEL_LABELS: dict[ModelName, str] = {
    "real": "real clips",
    "codec": "real through the codec",
    "champion": "champion",
    "base": "base",
    "generator": "generator",
}


def score_table(sheet: ScoreSheet, *, short: bool = False) -> tuple[list[Column], list[Row]]:
    """Columns and rows of the quality scores; the sanity figures are left to their own table.

    Args:
        sheet: all scores of an evaluation.
        short: only the Fréchet distances and `SHORT`.
    """
    quality = [score for score in sheet.scores if score.metric not in SANITY]
    if short:
        quality = [score for score in quality if score.metric.startswith("fd_") or score.metric in SHORT]
    rows: dict[tuple[ModelName, int, float], dict[str, Score]] = {}
    for score in quality:
        rows.setdefault((score.model, score.steps, score.cfg), {})[score.metric] = score
    ordered = sorted(rows, key=lambda r: (MODELS.index(r[0]), -r[1], r[2]))
    return _columns(quality), [Row(*place, rows[place]) for place in ordered]


def best_cells(rows: Iterable[Row]) -> set[tuple[str, ModelName, int, float]]:
    """The best base and generator row of each metric, as (metric, model, steps, cfg)."""
    cells: set[tuple[str, ModelName, int, float]] = set()
    made = [row for row in rows if row.model in ("base", "generator")]
    for metric in {name for row in made for name in row.cells}:
        winner = best(row.cells[metric] for row in made if metric in row.cells)
        if winner is not None:
            cells.add((metric, winner.model, winner.steps, winner.cfg))
    return cells


def metric_label(metric: str) -> str:
    """A metric's name for people."""
    kind, _, space = metric.partition("_")
    if kind in ("fd", "kid", "kl"):
        return f"{kind.upper()} {space}"
    return METRICS.get(metric) or SANITY.get(metric) or metric.replace("_", " ")


def show(value: float) -> str:
    """A value with about three significant digits and no exponent."""
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}".replace("-", "−")
    digits = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3
    return f"{value:.{digits}f}".replace("-", "−")


def show_seconds(seconds: float) -> str:
    """A duration: `8.4 s`, `1 min 05 s`, `2 h 03 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _columns(scores: Iterable[Score]) -> list[Column]:
    found: dict[str, Score] = {}
    for score in scores:
        found.setdefault(score.metric, score)
    distances = [name for kind in ("fd_", "kid_", "kl_") for name in found if name.startswith(kind)]
    rest = [name for name in METRICS if name in found]
    others = sorted(set(found) - set(distances) - set(rest))
    return [
        Column(name, f"{metric_label(name)} {ARROWS[found[name].better]}", found[name].unit)
        for name in (*distances, *rest, *others)
    ]
