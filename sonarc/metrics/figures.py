"""Pictures of a score sheet: Fréchet distance against sampler steps and against the time they take."""

from __future__ import annotations

import io
from collections.abc import Callable

import matplotlib

matplotlib.use("Agg")

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sonarc.contracts.scores import Score, ScoreSheet, best

Abscissa = Callable[[Score], float | None]


def distance_figures(sheet: ScoreSheet) -> dict[str, bytes]:
    """PNG files by name: `fd_steps.png` and `fd_seconds.png`, a panel an embedding space.

    A model is drawn at each step count with its best guidance; dashed: real clips through the codec;
    dotted: train against held-out clips. Bars are 95 % intervals.
    """

    def steps(score: Score) -> float:
        return float(score.steps)

    def seconds(score: Score) -> float | None:
        realtime = sheet.get("realtime", score.model, score.steps, score.cfg)
        return 1 / realtime.value if realtime is not None and realtime.value > 0 else None

    return {
        "fd_steps.png": _figure(sheet, steps, "sampler steps"),
        "fd_seconds.png": _figure(sheet, seconds, "seconds of compute a second of audio"),
    }


def _figure(sheet: ScoreSheet, abscissa: Abscissa, label: str) -> bytes:
    metrics = list(dict.fromkeys(score.metric for score in sheet.scores if score.metric.startswith("fd_")))
    figure = Figure(figsize=(4.8 * max(1, len(metrics)), 3.6), layout="constrained")
    for axes, metric in zip(figure.subplots(1, max(1, len(metrics)), squeeze=False)[0], metrics, strict=False):
        _panel(axes, sheet, metric, abscissa)
        axes.set_title(f"{metric}, lower is better")
        axes.set_xlabel(label)
        axes.set_xscale("log", base=2)
        axes.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return buffer.getvalue()


def _panel(axes: Axes, sheet: ScoreSheet, metric: str, abscissa: Abscissa) -> None:
    scores = [score for score in sheet.scores if score.metric == metric]
    for model in dict.fromkeys(score.model for score in scores if score.steps):
        at_steps: dict[int, list[Score]] = {}
        for score in scores:
            if score.model == model:
                at_steps.setdefault(score.steps, []).append(score)
        chosen = [found for _, group in sorted(at_steps.items()) if (found := best(group)) is not None]
        points = [(x, score) for score in chosen if (x := abscissa(score)) is not None]
        bars = [
            [max(0.0, score.value - (score.value if score.low is None else score.low)) for _, score in points],
            [max(0.0, (score.value if score.high is None else score.high) - score.value) for _, score in points],
        ]
        steps, values = [x for x, _ in points], [score.value for _, score in points]
        axes.errorbar(steps, values, yerr=bars, marker="o", capsize=3, label=model)
    for model, style in (("codec", "--"), ("real", ":")):
        floor = best(score for score in scores if score.model == model)
        if floor is not None:
            axes.axhline(floor.value, linestyle=style, color="grey", label=model)
