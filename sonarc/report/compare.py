"""The page that compares runs: scores with intervals, quality against speed, the same prompts side by side, and a blind
listening test of the first two. Self-contained, as the report of one run is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from sonarc.contracts import store
from sonarc.contracts.errors import DataError
from sonarc.contracts.scores import Score, best
from sonarc.report.compare_figure import quality_speed_figure
from sonarc.report.html import Player, templates
from sonarc.report.samples import Sample, read_samples, variant_label
from sonarc.report.spectrogram import HEIGHT, WIDTH, audio_uri, read_audio, spectrogram_uri
from sonarc.report.summary import SANITY, RunSummary
from sonarc.report.tables import METRICS, metric_label

LETTERS = "ABCDEFGH"
"""One a run."""
MAX_RUNS = len(LETTERS)


@dataclass(frozen=True)
class Compared:
    """A run to compare.

    Attributes:
        settings: dotted names → values, as text.
        samples: folder with WAV files and `samples.json`; None where nothing was generated.
        mlflow_run_id: where its votes go; None where it was not tracked.
    """

    summary: RunSummary
    settings: Mapping[str, str]
    samples: Path | None = None
    mlflow_run_id: str | None = None


@dataclass(frozen=True)
class Cell:
    """A score in the table."""

    score: Score | None
    best: bool
    comparable: bool
    """Whether it was measured with the same things as the first run's."""


@dataclass(frozen=True)
class Line:
    """One metric at one number of steps."""

    label: str
    steps: int
    unit: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Heard:
    """One prompt with the same seed, as every run answers it."""

    prompt: str
    seconds: float
    seed: int
    rows: tuple[tuple[str, tuple[Player, ...]], ...]
    """Variant's label and a player a run, in the runs' order."""


def render_comparison(runs: Sequence[Compared]) -> str:
    """The page as text.

    Raises:
        DataError: fewer than two runs or more than `MAX_RUNS`, one run twice, or unreadable samples.
    """
    ids = [run.summary.run_id for run in runs]
    if not 2 <= len(runs) <= MAX_RUNS:
        raise DataError(f"{len(runs)} runs cannot be compared.", f"Name 2 to {MAX_RUNS} runs.")
    if len(set(ids)) < len(ids):
        raise DataError(f"A run was named twice: {', '.join(ids)}.", "Name different runs.")
    samples = [[] if run.samples is None else read_samples(run.samples) for run in runs]
    heard, trials = _heard(runs, samples), _trials(runs, samples)
    figure = quality_speed_figure([run.summary.scores for run in runs], LETTERS)
    return (
        templates()
        .get_template("compare.html.j2")
        .render(
            runs=runs,
            letters=LETTERS,
            lines=_lines(runs),
            changed=_changed([run.settings for run in runs]),
            figure=Markup(figure) if figure else None,  # our own SVG, nothing from outside in it
            heard=heard,
            listening=trials,
            picture=(WIDTH, HEIGHT),
        )
    )


def write_comparison(runs: Sequence[Compared], target: Path) -> None:
    """Render the page into the file `target`; it appears whole or not at all."""
    store.write_bytes(target.resolve().as_uri(), render_comparison(runs).encode("utf-8"))


def _lines(runs: Sequence[Compared]) -> list[Line]:
    """The generators' scores, metric by metric, most steps first."""
    sheets = [run.summary.scores for run in runs]
    places: dict[tuple[str, int], None] = {}
    for sheet in sheets:
        for score in sheet.scores:
            if score.model == "generator" and score.metric not in SANITY:
                places[score.metric, score.steps] = None
    order = [*(m for m, _ in places if m.partition("_")[0] in ("fd", "kid", "kl")), *METRICS]
    ranked = sorted(places, key=lambda p: (order.index(p[0]) if p[0] in order else len(order), p[0], -p[1]))
    lines = []
    for metric, steps in ranked:
        scores = [sheet.get(metric, "generator", steps) for sheet in sheets]
        first = next(score for score in scores if score is not None)
        alike = [score is not None and first.comparable(score) for score in scores]
        rivals = [s for s, same in zip(scores, alike, strict=True) if s is not None and same]
        winner = best(rivals) if len({s.value for s in rivals}) > 1 else None
        cells = tuple(
            Cell(score, score is not None and score is winner, same) for score, same in zip(scores, alike, strict=True)
        )
        lines.append(Line(metric_label(metric), steps, first.unit, cells))
    return lines


def _changed(settings: Sequence[Mapping[str, str]]) -> list[tuple[str, list[str | None]]]:
    """Settings in which the runs differ; None where a run has no such setting."""
    names = sorted({name for each in settings for name in each})
    rows = [(name, [each.get(name) for each in settings]) for name in names]
    return [(name, values) for name, values in rows if len(set(values)) > 1]


def _matched(samples: Sequence[Sequence[Sample]]) -> list[list[Sample]]:
    """Samples of the same clip, prompt, length and seed in every run, in the first one's order."""
    tables = [{(s.key, s.prompt, s.seconds, s.seed): s for s in each} for each in samples]
    return [[table[place] for table in tables] for place in tables[0] if all(place in table for table in tables)]


def _heard(runs: Sequence[Compared], samples: Sequence[Sequence[Sample]]) -> list[Heard]:
    cards = []
    for alike in _matched(samples):
        variants = [name for name, _ in alike[0].ordered() if all(name in each.files for each in alike)]
        rows = []
        for variant in variants:
            one_for_all = variant in ("real", "codec")
            players = tuple(
                _player(variant, f"{LETTERS[n]}: {variant_label(variant)}", run.samples / each.files[variant])
                for n, (run, each) in enumerate(zip(runs, alike, strict=True))
                if run.samples is not None and (n == 0 or not one_for_all)
            )
            rows.append((variant_label(variant), players))
        cards.append(Heard(alike[0].prompt, alike[0].seconds, alike[0].seed, tuple(rows)))
    return cards


def _player(variant: str, label: str, path: Path) -> Player:
    audio_SA, rate = read_audio(path)
    return Player(variant, label, audio_uri(audio_SA, rate), spectrogram_uri(audio_SA, rate))


def _trials(runs: Sequence[Compared], samples: Sequence[Sequence[Sample]]) -> dict[str, Any] | None:
    """What the page's listening test needs; None where the first two runs share no generated prompt."""
    a, b = runs[0], runs[1]
    alike = _matched(samples[:2])
    variants = [
        name
        for name, _ in (alike[0][0].ordered() if alike else [])
        if name.startswith("generator") and all(name in s.files for pair in alike for s in pair)
    ]
    if not variants or a.samples is None or b.samples is None:
        return None
    variant = min(variants, key=lambda name: int(name.partition("@")[2] or 0))
    pairs = []
    for one, other in alike:
        audio = {}
        for side, folder, sample in (("a", a.samples, one), ("b", b.samples, other)):
            audio_SA, rate = read_audio(folder / sample.files[variant])
            audio[side] = audio_uri(audio_SA, rate)
        pairs.append({"prompt": one.prompt, "seed": one.seed, **audio})
    contenders = {
        side: {"run": run.summary.run_id, "mlflow_run_id": run.mlflow_run_id} for side, run in (("a", a), ("b", b))
    }
    return {**contenders, "variant": variant, "label": variant_label(variant), "pairs": pairs}
