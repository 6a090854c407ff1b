"""Votes of a blind listening test between two runs: what the comparison page saves, and what MLflow is told."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sonarc.contracts.errors import DataError

_RUN_ID = re.compile(r"^[0-9A-Za-z_-]{1,128}$")
Side = Literal["a", "b"]


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Contender(_Document):
    """One of the two."""

    run: Annotated[str, Field(pattern=_RUN_ID.pattern)]
    """The run's name."""
    mlflow_run_id: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")] | None = None


class Vote(_Document):
    """One prompt, heard from both without knowing which is which."""

    prompt: Annotated[str, Field(max_length=10_000)]
    seed: int
    first: Side
    """Which one was played as the first of the pair."""
    choice: Side | Literal["tie"]


class Votes(_Document):
    """`votes.json`: one listener's session."""

    schema_: Literal["sonarc.votes/1"] = Field(default="sonarc.votes/1", alias="schema")
    id: Annotated[str, Field(pattern=r"^[0-9a-f-]{8,64}$")]
    """The session; told twice it counts once."""
    a: Contender
    b: Contender
    variant: str
    """What was heard, as `generator@4`."""
    listener: Annotated[str, Field(max_length=200)] = ""
    votes: tuple[Vote, ...]

    @model_validator(mode="after")
    def _of_two(self) -> Votes:
        if self.a.run == self.b.run:
            raise ValueError(f"the run {self.a.run} was compared with itself")
        if not self.votes:
            raise ValueError("no vote was given")
        heard = [(vote.prompt, vote.seed) for vote in self.votes]
        if len(set(heard)) < len(heard):
            raise ValueError("a prompt was voted on twice in one session")
        return self


def read_votes(path: Path) -> Votes:
    """The votes in a file.

    Raises:
        DataError: it cannot be read or does not follow the schema.
    """
    try:
        return Votes.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error.strerror}.", "Save the votes from the comparison page.") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the document"
        raise DataError(
            f"{path} does not follow the schema of votes: {where}: {first['msg']}.",
            "Save the votes from the comparison page again.",
        ) from error
