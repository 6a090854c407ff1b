"""From what was heard to the study's rows and differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from pydantic import BaseModel, ConfigDict

from sonarc.contracts.scores import Difference, ModelName
from sonarc.metrics.diversity import conditional_diversity
from sonarc.metrics.embedders.interface import AudioText, Embeddings
from sonarc.metrics.frechet import Floats
from sonarc.metrics.hearing import agreement
from sonarc.metrics.listening import CLASSES
from sonarc.metrics.posteriors import posterior_divergence
from sonarc.metrics.probe import ClassProbe, class_of
from sonarc.metrics.scoring import STATED, Row, Scorer
from sonarc.metrics.tasks import Tasks
from sonarc.study.heard import HEARING, Heard

NAMES = {"fd_aisfx": "fd", "fd_yamnet": "fd_second", "kid_aisfx": "kid", "kid_yamnet": "kid_second", "kl_yamnet": "kl"}
"""Metric → its column; the others have their own name."""
COLUMNS = (
    "fd", "fd_second", "kid", "kid_second", "kl", "adherence", *STATED, "precision", "recall", "density", "coverage",
    "diversity",
)  # fmt: skip


class StudyRow(BaseModel):
    """One model under one sampling: a row of `study.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    """`real`, `codec`, `base`, or an arm."""
    steps: int
    """Sampler steps; 0 where nothing is sampled."""
    cfg: float
    iterations: int
    """Optimizer steps of the training behind it."""
    training_seed: int | None
    sampling_seed: int | None
    n: int
    n_real: int
    ref_sha256: str
    fd: float | None = None
    """Fréchet distance in the main space, aiSFX, PCA-64."""
    fd_second: float | None = None
    """The same in YAMNet's space."""
    kid: float | None = None
    kid_second: float | None = None
    kl: float | None = None
    """Divergence of YAMNet's classes from those of the real clip behind the prompt, nats."""
    adherence: float | None = None
    """Cosine of clip and prompt in the in-domain CLAP."""
    accuracy: float | None = None
    """Share of clips that a linear probe names as the class in their caption."""
    in_register: float | None = None
    """Share of single lines whose median pitch lies in the register that their prompt's clip has."""
    in_key: float | None = None
    """Share of tonal energy on the scale of the clip's key; .58 by chance."""
    tempo: float | None = None
    """Share of clips among whose two strongest periods is the clip's beat, its half, double or third."""
    loudness: float | None = None
    """Mean distance from the train clips' loudness, dB."""
    length: float | None = None
    """Mean distance of the last sound from the length asked for, seconds."""
    precision: float | None = None
    recall: float | None = None
    density: float | None = None
    coverage: float | None = None
    diversity: float | None = None
    """Mean CLAP distance between answers to one prompt."""
    seconds: float | None = None
    """Wall time of sampling and decoding a clip, of a batch; see `Timing`. None until it is measured."""
    silent: float | None = None
    """Share of silent clips."""
    intervals: dict[str, tuple[float, float]] = {}
    """Column → 95 % interval."""

    @property
    def name(self) -> str:
        """`base@4 cfg 2.5`, `arc@4 seed 1`."""
        steps = f"@{self.steps}" if self.steps else ""
        guidance = f" cfg {self.cfg:g}" if self.cfg != 1 else ""
        seed = f" seed {self.training_seed}" if self.training_seed else ""
        return f"{self.model}{steps}{guidance}{seed}"


class StudyDifference(BaseModel):
    """`a - b` of one column over the same resampled prompts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    metric: str
    a: str
    b: str
    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Entry:
    """A row with what it was heard as."""

    model: str
    steps: int
    cfg: float
    heard: Heard
    iterations: int = 0
    training_seed: int | None = None
    seeds: tuple[int, ...] = ()


@dataclass(frozen=True)
class Judge:
    """Scores what answers one set of tasks.

    Attributes:
        real: the real clips behind the tasks.
        lufs: loudness of train clips.
    """

    scorer: Scorer
    clap: AudioText
    probe: ClassProbe
    tasks: Tasks
    real: Heard
    lufs: float

    @cached_property
    def _prompts_NE(self) -> Embeddings:
        """The prompts in the audio-text model's space."""
        return self.clap.text(self.tasks.prompts)

    def row(self, entry: Entry, *, keys: Sequence[str] | None = None) -> Row:
        """An entry as the scorer takes it; `keys` name its clips where they answer no tasks."""
        heard, tasks = entry.heard, self.tasks
        if keys is not None:
            return Row(_kind(entry.model), entry.steps, entry.cfg, "", keys, (), heard.vectors)
        vectors_NE = heard.vectors[self.clap.name]
        prompts = len(heard.again_PGE)
        first_P1E = vectors_NE[:prompts, None]
        return Row(
            _kind(entry.model),
            entry.steps,
            entry.cfg,
            "",
            tasks.keys,
            entry.seeds,
            heard.vectors,
            adherence_N=(vectors_NE * self._prompts_NE).sum(axis=1),
            divergence_N=_divergences(self.real.vectors, heard.vectors),
            stated_N={
                "accuracy": self.probe.right(heard.vectors, [class_of(concept) for concept in tasks.concepts]),
                **agreement(heard.vectors[HEARING], tasks.concepts, tasks.seconds, self.lufs),
            },
            diversity_P=conditional_diversity(np.concatenate([first_P1E, heard.again_PGE], axis=1))
            if prompts
            else None,
            sanity=heard.sanity,
        )

    def scored(self, entry: Entry, row: Row) -> StudyRow:
        """Every column of a row."""
        scores = {NAMES.get(score.metric, score.metric): score for score in self.scorer.scores(row)}
        found = {name: scores[name] for name in COLUMNS if name in scores}
        return StudyRow(
            model=entry.model,
            steps=entry.steps,
            cfg=entry.cfg,
            iterations=entry.iterations,
            training_seed=entry.training_seed,
            sampling_seed=entry.seeds[0] if entry.seeds else None,
            n=len(row.prompts),
            n_real=len(self.scorer.reference.manifest.keys),
            ref_sha256=self.scorer.reference_sha256,
            silent=None if entry.heard.sanity is None else entry.heard.sanity.silent_fraction,
            intervals={
                name: (score.low, score.high)
                for name, score in found.items()
                if score.low is not None and score.high is not None
            },
            **{name: score.value for name, score in found.items()},
        )

    def difference(self, column: str, a: tuple[StudyRow, Row], b: tuple[StudyRow, Row]) -> StudyDifference | None:
        """`a - b` of a column, resampled together."""
        metric = {column: metric for metric, column in NAMES.items()}.get(column, column)
        found: Difference | None = self.scorer.difference(metric, a[1], b[1])
        if found is None:
            return None
        return StudyDifference(
            metric=column, a=a[0].name, b=b[0].name, value=found.value, low=found.low, high=found.high, n=found.n
        )


def _kind(model: str) -> ModelName:
    return model if model in ("real", "codec", "base") else "generator"  # type: ignore[return-value]


def _divergences(real: Mapping[str, Floats], heard: Mapping[str, Floats]) -> dict[str, Floats]:
    return {
        name.removeprefix(CLASSES): posterior_divergence(real[name], heard[name])
        for name in real
        if name.startswith(CLASSES)
    }
