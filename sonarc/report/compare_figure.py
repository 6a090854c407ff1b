"""Quality against speed of several runs' generators, as inline SVG that follows the page's theme."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from sonarc.contracts.scores import ScoreSheet
from sonarc.report.figures import FAINT, INK, abscissa, as_svg, bars, curve, dress
from sonarc.report.tables import metric_label

_COLOURS = tuple(f"#06060{n}" for n in range(8))
"""Stand for the page's `--run-0` to `--run-7`."""
_MARKERS = "os^Dv<>P"
_VARIABLES = {colour: f"var(--run-{n})" for n, colour in enumerate(_COLOURS)}


def quality_speed_figure(sheets: Sequence[ScoreSheet], letters: str) -> str | None:
    """An `<svg>`: Fréchet distance against steps and against seconds of compute, a line a run.

    None where no run has a Fréchet distance of its generator.
    """
    metrics = list(
        dict.fromkeys(s.metric for sheet in sheets for s in sheet.scores if s.metric.startswith("fd_") and s.steps)
    )
    if not metrics:
        return None
    figure = Figure(figsize=(9.6, 3.3 * len(metrics)), layout="constrained")
    grid = figure.subplots(len(metrics), 2, sharey="row", squeeze=False)
    for row, metric in enumerate(metrics):
        for column, seconds in enumerate((False, True)):
            axes = grid[row][column]
            for n, sheet in enumerate(sheets):
                points = [(abscissa(sheet, s, seconds), s) for s in curve(sheet, metric, "generator")]
                drawn = [(x, s) for x, s in points if x is not None]
                if drawn:
                    axes.errorbar(
                        [x for x, _ in drawn],
                        [s.value for _, s in drawn],
                        yerr=bars([s for _, s in drawn]),
                        color=_COLOURS[n],
                        marker=_MARKERS[n],
                        markersize=5,
                        linewidth=1.6,
                        capsize=2.5,
                        label=letters[n],
                    )
            steps = [s.steps for sheet in sheets for s in sheet.scores if (s.metric, s.model) == (metric, "generator")]
            dress(axes, steps, seconds)
        grid[row][0].set_ylabel(f"{metric_label(metric)} (lower is better)")
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=len(sheets), frameon=False, labelcolor=INK)
    return as_svg(figure, {INK: "var(--ink)", FAINT: "var(--faint)", **_VARIABLES})
