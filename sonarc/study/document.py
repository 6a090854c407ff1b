"""The study as a page and a picture, written from `study.json` alone."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from sonarc.contracts import store
from sonarc.study.design import ARC
from sonarc.study.result import StudyResult
from sonarc.study.scores import StudyDifference, StudyRow

TABLE = (
    "fd", "fd_second", "adherence", "accuracy", "in_register", "in_key", "tempo", "recall", "coverage", "diversity",
    "kl",
)  # fmt: skip
TITLES = {"fd": "FD aiSFX", "fd_second": "FD YAMNet", "kl": "KL YAMNet"}
LOWER = ("fd", "fd_second", "kl")
DIGITS = {"fd": 1, "fd_second": 1, "kl": 2}


def write_documents(result: StudyResult, out: Path) -> None:
    """Write `study.md` and `study.png` into `out`."""
    store.write_bytes((out / "study.png").resolve().as_uri(), picture(result))
    store.write_bytes((out / "study.md").resolve().as_uri(), page(result).encode())


def page(result: StudyResult) -> str:
    """The page as Markdown."""
    parts = [
        "# The study",
        _introduction(result),
        "![Fréchet distance against sampler steps and against seconds](study.png)",
        "## What was hoped for, and what came out",
        _claims(result),
        "## Every row",
        _rows(result.rows),
        "## Differences",
        "`a − b` of the same prompts with the same noise, resampled together; of several guidances the base's best in "
        "that column. Bold: the interval is on one side of zero.",
        _differences(result.differences),
        "## Chosen on the validation split",
        _choices(result),
        "## Trainings",
        _trainings(result),
        "## What a clip costs",
        "Seconds of sampling and decoding, 64 clips together, after the rows were made: every way in turn, "
        "round after round. The ablations cost what ARC costs at equal steps.",
        _timings(result),
        "## Does it copy?",
        "Cosine of each clip with its nearest train clip, in the principal axes of aiSFX's space. `beyond`: the share "
        "of clips nearer to a train clip than 99 of 100 real held-out clips are; .01 is what real clips give.",
        _copying(result),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _introduction(result: StudyResult) -> str:
    design, config = result.design, result.design["config"]
    state = "" if result.done else "**The study is not finished: these are its rows so far.** "
    reference = next((row for row in result.rows if row.model == "real"), None)
    real = f" against {reference.n_real:,} real test clips" if reference else ""
    return (
        f"{state}Written by `{result.command}` on {result.machine}. {config['data']['demo']['clips']:,} demo clips of "
        f"{config['audio']['samples'] / config['audio']['sample_rate']:.2f} s, split three ways by group; "
        f"n = {design['clips']:,} clips a row{real}. Nothing was chosen on the test split: guidance and settings come "
        f"from the validation split. Intervals are 95 %, of prompts and noise, given the models. "
        f"All figures are in [study.json](study.json)."
    )


def _number(row: StudyRow, column: str) -> str:
    value = getattr(row, column)
    if value is None:
        return ""
    digits = DIGITS.get(column, 3)
    text = f"{value:.{digits}f}"
    if column in row.intervals:
        low, high = row.intervals[column]
        text += f" [{low:.{digits}f}, {high:.{digits}f}]"
    return text


def _rows(rows: Sequence[StudyRow]) -> str:
    head = ["model", "iterations", *(TITLES.get(c, c) for c in TABLE), "seconds a clip"]
    lines = [_line(head), _line(["---"] * len(head))]
    for row in rows:
        seconds = "" if row.seconds is None else f"{row.seconds:.3f}"
        figures = (_number(row, column) for column in TABLE)
        lines.append(_line([row.name, str(row.iterations or ""), *figures, seconds]))
    return "\n".join(lines)


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _said(difference: StudyDifference) -> str:
    digits = DIGITS.get(difference.metric, 3)
    text = f"{difference.value:+.{digits}f} [{difference.low:+.{digits}f}, {difference.high:+.{digits}f}]"
    return f"**{text}**" if difference.low > 0 or difference.high < 0 else text


def _differences(differences: Sequence[StudyDifference]) -> str:
    columns = [c for c in (*TABLE, "kid") if any(d.metric == c for d in differences)]
    table: dict[tuple[str, str], dict[str, StudyDifference]] = {}
    for difference in differences:
        rival = difference.b.split(" cfg")[0]
        table.setdefault((difference.a, rival), {})[difference.metric] = difference
    head = ["a", "b", *(TITLES.get(c, c) for c in columns)]
    lines = [_line(head), _line(["---"] * len(head))]
    for (a, b), found in table.items():
        lines.append(_line([a, b, *(_said(found[c]) if c in found else "" for c in columns)]))
    return "\n".join(lines) if table else ""


def _choices(result: StudyResult) -> str:
    lines = ["| what | chosen | tried |", "|---|---|---|"]
    for choice in result.choices:
        tried = ", ".join(f"{name}: {value:.1f}" for name, value in choice.tried.items())
        lines.append(f"| {choice.what} | {choice.chosen} | {tried} |")
    return "\n".join(lines) if result.choices else ""


def _trainings(result: StudyResult) -> str:
    lines = ["| training | iterations | seconds | checkpoint |", "|---|---|---|---|"]
    for line in result.trainings:
        lines.append(f"| {line.name} | {line.iterations} | {line.seconds:.0f} | `{line.sha256[:12]}` |")
    return "\n".join(lines)


def _timings(result: StudyResult) -> str:
    if not result.timings:
        return "Not yet measured."
    lines = ["| model | steps | median | quickest | slowest |", "|---|---|---|---|---|"]
    for t in result.timings:
        model = ARC if t.kind == "generator" else "base with guidance" if t.guided else "base"
        lines.append(f"| {model} | {t.steps} | {t.seconds:.3f} | {t.low:.3f} | {t.high:.3f} |")
    return "\n".join(lines)


def _copying(result: StudyResult) -> str:
    if not result.copying:
        return "Not yet checked."
    lines = ["| row | median | 99th percentile | beyond |", "|---|---|---|---|"]
    for line in result.copying:
        lines.append(f"| {line.row} | {line.median:.3f} | {line.high:.3f} | {line.beyond:.3f} |")
    return "\n".join(lines)


def _claims(result: StudyResult) -> str:
    """Each hope with a verdict that the differences alone decide."""
    lines = ["| hope | verdict | figures |", "|---|---|---|"]
    for hope, wanted in _hopes(result):
        found = [(d, came_true) for d, came_true in wanted if d is not None]
        if not found or len(found) < len(wanted):
            lines.append(f"| {hope} | not yet measured | |")
            continue
        good = [came_true(d) for d, came_true in found]
        verdict = "yes" if all(good) else "no" if not any(good) else "in part"
        figures = "; ".join(f"{TITLES.get(d.metric, d.metric)} {_said(d)} ({d.a} − {d.b})" for d, _ in found)
        lines.append(f"| {hope} | {verdict} | {figures} |")
    return "\n".join(lines)


def _falls(difference: StudyDifference) -> bool:
    return difference.high < 0


def _rises(difference: StudyDifference) -> bool:
    return difference.low > 0


def _holds(difference: StudyDifference) -> bool:
    """Not clearly lower."""
    return difference.high >= 0


Wanted = tuple[StudyDifference | None, Callable[[StudyDifference], bool]]


def _hopes(result: StudyResult) -> Iterator[tuple[str, list[Wanted]]]:
    def of(metric: str, a: str, b: str, came_true: Callable[[StudyDifference], bool]) -> Wanted:
        found = (d for d in result.differences if (d.metric, d.a, d.b.split(" cfg")[0]) == (metric, a, b))
        return next(found, None), came_true

    def against_base(steps: int, base_steps: int, held: Sequence[str]) -> list[Wanted]:
        a, b = f"{ARC}@{steps}", f"base@{base_steps}"
        return [*(of(m, a, b, _falls) for m in ("fd", "fd_second")), *(of(m, a, b, _holds) for m in held)]

    def against_arc(arm: str, wanted: Sequence[tuple[str, Callable[[StudyDifference], bool]]]) -> list[Wanted]:
        seeds = [f" seed {seed}" if seed else "" for seed in result.design["training_seeds"]]
        samplings = [f"@{steps}{seed}" for steps in result.design["ablation_steps"] for seed in seeds]
        return [of(m, arm + sampling, ARC + sampling, true) for sampling in samplings for m, true in wanted]

    for steps in (8, 4):
        yield (
            f"ARC at {steps} steps beats the base's best guidance at {steps} in both spaces, adherence no lower",
            against_base(steps, steps, ["adherence"]),
        )
    most = max(result.design["base_steps"])
    yield (
        f"ARC at 8 steps reaches the base at {most} with guidance in both spaces, adherence and recall included",
        [
            *(of(m, f"{ARC}@8", f"base@{most}", lambda d: d.low <= 0) for m in ("fd", "fd_second")),
            *(of(m, f"{ARC}@8", f"base@{most}", _holds) for m in ("adherence", "recall")),
        ],
    )
    yield "Least squares in place of the relativistic loss is worse", against_arc("arc_lsgan", [("fd", _rises)])
    yield (
        "Without the contrastive term adherence falls and diversity rises",
        against_arc("arc_no_contrastive", [("adherence", _falls), ("diversity", _rises)]),
    )


def picture(result: StudyResult) -> bytes:
    """PNG: both distances against steps, and against seconds a clip."""
    figure = Figure(figsize=(11, 7.6), layout="constrained")
    panels = figure.subplots(2, 2)

    def steps(row: StudyRow) -> float | None:
        return float(row.steps)

    def seconds(row: StudyRow) -> float | None:
        return row.seconds

    for axes, (column, abscissa, label) in zip(
        panels.flat,
        [
            (column, abscissa, label)
            for abscissa, label in ((steps, "sampler steps"), (seconds, "seconds of compute a clip"))
            for column in ("fd", "fd_second")
        ],
        strict=True,
    ):
        _panel(axes, result.rows, column, abscissa)
        axes.set_title(f"{TITLES[column]}, lower is better")
        axes.set_xlabel(label)
        if any(abscissa(row) is not None for row in result.rows if row.steps):
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.3g}"))
        else:
            axes.set_xticks([])
            axes.text(0.5, 0.5, "not yet measured", transform=axes.transAxes, ha="center")
    if result.rows:
        handles, names = panels.flat[0].get_legend_handles_labels()
        figure.legend(handles, names, fontsize=8, loc="outside lower center", ncols=5)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100, metadata={"Software": None})
    return buffer.getvalue()


def _panel(axes: Axes, rows: Sequence[StudyRow], column: str, abscissa: Callable[[StudyRow], float | None]) -> None:
    lines: dict[str, list[StudyRow]] = {}
    for row in rows:
        if row.steps and getattr(row, column) is not None:
            guided = " with guidance" if row.cfg != 1 else " without guidance" if row.model == "base" else ""
            seed = f" seed {row.training_seed}" if row.training_seed else ""
            lines.setdefault(f"{row.model}{guided}{seed}", []).append(row)
    for name, members in lines.items():
        best: dict[int, StudyRow] = {}
        for row in members:  # of several guidances the best
            if row.steps not in best or getattr(row, column) < getattr(best[row.steps], column):
                best[row.steps] = row
        points = sorted((x, getattr(row, column)) for row in best.values() if (x := abscissa(row)) is not None)
        style = "-" if name.startswith(("base", f"{ARC} ")) or name == ARC else ":"
        axes.plot([x for x, _ in points], [y for _, y in points], marker="o", markersize=4, linestyle=style, label=name)
    for model, style in (("codec", "--"), ("real", ":")):
        floor = next((getattr(row, column) for row in rows if row.model == model), None)
        if floor is not None:
            axes.axhline(floor, linestyle=style, color="grey", label=model)
