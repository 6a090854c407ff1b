"""`study.json`: everything a study found, row by row."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sonarc.contracts import store
from sonarc.contracts.errors import DataError
from sonarc.study.scores import StudyDifference, StudyRow
from sonarc.study.timing import Timing


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TrainingLine(_Line):
    """One training."""

    name: str
    iterations: int
    seconds: float
    """Wall time, all attempts."""
    sha256: str
    """Hash of the checkpoint."""


class Choice(_Line):
    """Something chosen on the validation split."""

    what: str
    chosen: str
    tried: dict[str, float]
    """What was tried → its score."""


class Copying(_Line):
    """How near clips of a row lie to their nearest train clip, as cosine in the main space."""

    row: str
    median: float
    high: float
    """99th percentile."""
    beyond: float
    """Share nearer than 99 of 100 real held-out clips are."""


class StudyResult(_Line):
    """`study.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    schema_: Literal["sonarc.study/1"] = Field(default="sonarc.study/1", alias="schema")
    design: dict[str, Any]
    design_sha256: str
    done: bool
    """Whether every row is there."""
    machine: str = ""
    command: str = ""
    trainings: tuple[TrainingLine, ...] = ()
    choices: tuple[Choice, ...] = ()
    rows: tuple[StudyRow, ...] = ()
    differences: tuple[StudyDifference, ...] = ()
    copying: tuple[Copying, ...] = ()
    timings: tuple[Timing, ...] = ()

    def row(self, name: str) -> StudyRow | None:
        """The row of that name, such as `arc@4`."""
        return next((row for row in self.rows if row.name == name), None)


def read_study(uri: str) -> StudyResult:
    """The study at `uri` (the file itself).

    Raises:
        StoreError: there is none. DataError: it does not follow its schema.
    """
    try:
        return StudyResult.model_validate(store.read_json(uri))
    except ValidationError as error:
        raise DataError(f"{uri} does not follow its schema: {error}.", "Run `sonarc study` again.") from error


def write_study(uri: str, result: StudyResult) -> str:
    """Write a study; returns its sha256."""
    return store.write_json(uri, result.model_dump(mode="json", by_alias=True))
