"""The report's figure as inline SVG: Fréchet distance against steps and against compute.

Text stays text and colours become CSS variables, so the figure follows the page's light or dark
theme and can be read aloud.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import matplotlib
import matplotlib.ticker

matplotlib.use("Agg")

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sonarc.contracts.scores import ModelName, Score, ScoreSheet, best
from sonarc.report.tables import metric_label

INK, FAINT = "#010101", "#020202"
_COLOURS: dict[ModelName, str] = {"base": "#030303", "generator": "#040404", "champion": "#050505"}
_VARIABLES = {
    INK: "var(--ink)",
    FAINT: "var(--faint)",
    _COLOURS["base"]: "var(--base)",
    _COLOURS["generator"]: "var(--generator)",
    _COLOURS["champion"]: "var(--champion)",
}
_MARKERS: dict[ModelName, str] = {"base": "s", "generator": "o", "champion": "^"}


def distance_figure(sheet: ScoreSheet) -> str | None:
    """An `<svg>` with two panels per embedding space: FD against steps, FD against seconds of compute.

    The base is drawn with the guidance that scores best at each step count. None where the sheet
    has no Fréchet distance of a model with steps.
    """
    metrics = list(dict.fromkeys(s.metric for s in sheet.scores if s.metric.startswith("fd_") and s.steps))
    if not metrics:
        return None
    figure = Figure(figsize=(9.6, 3.3 * len(metrics)), layout="constrained")
    grid = figure.subplots(len(metrics), 2, sharey="row", squeeze=False)
    for row, metric in enumerate(metrics):
        _panel(grid[row][0], sheet, metric, seconds=False)
        _panel(grid[row][1], sheet, metric, seconds=True)
        grid[row][0].set_ylabel(f"{metric_label(metric)} (lower is better)")
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=4, frameon=False, labelcolor=INK)
    return as_svg(figure, _VARIABLES)


def _panel(axes: Axes, sheet: ScoreSheet, metric: str, *, seconds: bool) -> None:
    for model, colour in _COLOURS.items():
        points = [(abscissa(sheet, score, seconds), score) for score in curve(sheet, metric, model)]
        drawn = [(x, score) for x, score in points if x is not None]
        if not drawn:
            continue
        axes.errorbar(
            [x for x, _ in drawn],
            [score.value for _, score in drawn],
            yerr=bars([score for _, score in drawn]),
            color=colour,
            marker=_MARKERS[model],
            markersize=5,
            linewidth=1.6,
            capsize=2.5,
            label=model,
        )
    for model, style, label in (("codec", "--", "real through the codec"), ("real", ":", "real")):
        floor = sheet.get(metric, model, 0)
        if floor is not None:
            axes.axhline(floor.value, color=FAINT, linestyle=style, linewidth=1.2, label=label)
    dress(axes, [s.steps for s in sheet.scores if s.metric == metric and s.steps], seconds)


def dress(axes: Axes, steps: Sequence[int], seconds: bool) -> None:
    """Scales, ticks and labels of a panel over steps, or over seconds of compute."""
    axes.set_xscale("log")
    if seconds:
        axes.xaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
        axes.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
        axes.xaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_xlabel("seconds of compute a second of audio")
    else:
        ticks = sorted(set(steps))
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
        axes.set_xlabel("sampler steps")
    axes.set_ylim(bottom=0)
    axes.grid(True, axis="y", color=FAINT, linewidth=0.5, alpha=0.35)
    axes.tick_params(colors=INK, which="both")
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(INK)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(FAINT)


def curve(sheet: ScoreSheet, metric: str, model: ModelName) -> list[Score]:
    """A model's best score at each of its step counts."""
    steps = sorted({s.steps for s in sheet.scores if (s.metric, s.model) == (metric, model) and s.steps})
    found = (best(s for s in sheet.scores if (s.metric, s.model, s.steps) == (metric, model, n)) for n in steps)
    return [score for score in found if score is not None]


def abscissa(sheet: ScoreSheet, score: Score, seconds: bool) -> float | None:
    """Steps, or seconds of compute a second of audio: the inverse of the realtime factor."""
    if not seconds:
        return float(score.steps)
    factor = sheet.get("realtime", score.model, score.steps, score.cfg)
    return 1 / factor.value if factor is not None and factor.value > 0 else None


def bars(scores: Sequence[Score]) -> list[list[float]]:
    """Error bars downwards and upwards; none where a score has no interval."""
    return [
        [max(0.0, s.value - s.low) if s.low is not None else 0.0 for s in scores],
        [max(0.0, s.high - s.value) if s.high is not None else 0.0 for s in scores],
    ]


def as_svg(figure: Figure, variables: Mapping[str, str]) -> str:
    """A figure as `<svg>`, its text still text, and CSS variables in place of the colours that stand for them."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "sonarc"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    for sentinel, variable in variables.items():
        svg = svg.replace(sentinel, variable)
    return svg
