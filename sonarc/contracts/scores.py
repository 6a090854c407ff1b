"""Scores that can be compared, or are refused: every one carries what it was measured with."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sonarc.contracts import store
from sonarc.contracts.errors import DataError

ModelName = Literal["real", "codec", "base", "generator", "champion"]


class Score(BaseModel):
    """One metric of one model under one sampling."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    metric: str
    """`fd_<embedder>`, `kl_<tagger>`, `adherence`, `recall`, `coverage`, `diversity`, `realtime`, `side_db`…"""
    model: ModelName
    steps: int = Field(ge=0)
    """Sampler steps; 0 for real clips and reconstructions."""
    cfg: float = 1.0
    sampler: str = ""
    value: float
    low: float | None = None
    """Lower end of the 95 % bootstrap interval; None where resampling makes no sense."""
    high: float | None = None
    unit: str = ""
    better: Literal["lower", "higher", "near"] = "lower"
    n: int = Field(ge=0)
    """Clips scored."""
    n_real: int = 0
    """Reference clips scored against."""
    seeds: tuple[int, ...] = ()
    embedder_sha256: str = ""
    reference_sha256: str = ""

    def comparable(self, other: Score) -> bool:
        """Whether two scores were measured with the same things."""
        mine = (self.metric, self.embedder_sha256, self.reference_sha256, self.n, self.n_real)
        return mine == (other.metric, other.embedder_sha256, other.reference_sha256, other.n, other.n_real)


class Difference(BaseModel):
    """`a − b` of one metric, resampled together."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    metric: str
    a: str
    """`model@steps`, such as `generator@4`."""
    b: str
    """`model@steps`; for the base the guidance with the best value at these steps."""
    value: float
    low: float
    high: float
    n: int
    embedder_sha256: str = ""
    reference_sha256: str = ""


class ScoreSheet(BaseModel):
    """`scores.json`: all scores of one evaluation."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    schema_: Literal["sonarc.scores/1"] = Field(default="sonarc.scores/1", alias="schema")
    scores: tuple[Score, ...] = ()
    differences: tuple[Difference, ...] = ()

    def get(self, metric: str, model: str, steps: int, cfg: float | None = None) -> Score | None:
        """The score of that name, or None; without `cfg` the best guidance."""
        found = [
            score
            for score in self.scores
            if (score.metric, score.model, score.steps) == (metric, model, steps) and cfg in (None, score.cfg)
        ]
        return best(found)


def best(scores: Iterable[Score]) -> Score | None:
    """The best finite score, by its own sense of better; None if there is none."""
    finite = [score for score in scores if math.isfinite(score.value)]
    if not finite:
        return None
    return max(finite, key=lambda s: s.value) if finite[0].better == "higher" else min(finite, key=lambda s: s.value)


def read_scores(uri: str) -> ScoreSheet:
    """The score sheet at `uri` (the file itself)."""
    document: Any = store.read_json(uri)
    try:
        return ScoreSheet.model_validate(document)
    except ValidationError as error:
        raise DataError(f"{uri} does not follow its schema: {error}.", "Evaluate again.") from error


def write_scores(uri: str, sheet: ScoreSheet) -> str:
    """Write a score sheet; returns its sha256. A NaN or infinite value is refused by the JSON writer."""
    return store.write_json(uri, sheet.model_dump(mode="json", by_alias=True))
