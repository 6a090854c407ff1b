"""`report.html`: one self-contained page with players, spectrograms, scores and the run's times.

Nothing is loaded from elsewhere: audio, pictures, style and script are inside, and the page's own
content policy forbids the network.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from sonarc.contracts import store
from sonarc.contracts.scores import Difference
from sonarc.contracts.tuning import TunedWeights
from sonarc.report.figures import distance_figure
from sonarc.report.samples import Sample, read_samples, variant_label
from sonarc.report.spectrogram import HEIGHT, WIDTH, audio_uri, read_audio, spectrogram_uri
from sonarc.report.summary import MAIN_STEPS, SANITY, RunSummary
from sonarc.report.tables import MODEL_LABELS, best_cells, metric_label, score_table, show, show_seconds

_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Player:
    """One recording on the page."""

    variant: str
    label: str
    audio: str
    """OGG data URI."""
    picture: str
    """PNG data URI."""


@dataclass(frozen=True)
class PromptCard:
    """One prompt and its recordings, side by side."""

    prompt: str
    seconds: float
    seed: int
    players: tuple[Player, ...]


def templates() -> Environment:
    """The pages' templates, with the filters that show figures; whatever they are given is text, never markup."""
    found = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters.update(seconds=show_seconds, number=show, metric=metric_label)
    return found


def render_report(summary: RunSummary, samples: Path | None = None) -> str:
    """The page as text.

    Args:
        summary: the run.
        samples: folder with WAV files and `samples.json`; None where nothing was generated.

    Raises:
        DataError: the samples are incomplete or unreadable.
    """
    columns, rows = score_table(summary.scores)
    figure = distance_figure(summary.scores)
    return (
        templates()
        .get_template("report.html.j2")
        .render(
            run=summary,
            headline=headline(summary),
            columns=columns,
            rows=rows,
            winners=best_cells(rows),
            sanity=summary.sanity(),
            sanity_labels=SANITY,
            model_labels=MODEL_LABELS,
            study=[] if summary.tuning is None else _study(summary.tuning),
            figure=Markup(figure) if figure else None,  # our own SVG, nothing from outside in it
            cards=[] if samples is None else [_card(sample, samples) for sample in read_samples(samples)],
            longest=max((line.seconds for line in summary.stages), default=0.0) or 1.0,
            picture=(WIDTH, HEIGHT),
        )
    )


def write_report(summary: RunSummary, samples: Path | None, target: Path) -> None:
    """Render the page into the file `target`; it appears whole or not at all."""
    store.write_bytes(str(target), render_report(summary, samples).encode("utf-8"))


def headline(summary: RunSummary) -> Difference | None:
    """The comparison the report opens with: the first one of the generator with the base at the main step count."""
    wanted = (f"generator@{MAIN_STEPS}", f"base@{MAIN_STEPS}")
    return next((d for d in summary.scores.differences if (d.a, d.b.split(",")[0]) == wanted), None)


def _study(tuned: TunedWeights) -> list[tuple[str, str]]:
    """Title and data URI of each figure of the search."""
    from sonarc.tuning.figures import study_figures  # Optuna and pyplot: for runs that tuned

    encoded = {p.title: base64.b64encode(p.svg.encode("utf-8")).decode("ascii") for p in study_figures(tuned)}
    return [(title, f"data:image/svg+xml;base64,{text}") for title, text in encoded.items()]


def _card(sample: Sample, folder: Path) -> PromptCard:
    return PromptCard(
        prompt=sample.prompt,
        seconds=sample.seconds,
        seed=sample.seed,
        players=tuple(_player(variant, folder / name) for variant, name in sample.ordered()),
    )


def _player(variant: str, path: Path) -> Player:
    audio_SA, rate = read_audio(path)
    return Player(
        variant=variant,
        label=variant_label(variant),
        audio=audio_uri(audio_SA, rate),
        picture=spectrogram_uri(audio_SA, rate),
    )
