"""What a schedule is, and the verbs that every keeper of schedules understands."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sonarc.contracts.config import SonarcConfig
from sonarc.contracts.config.tree import explain
from sonarc.contracts.errors import ConfigError
from sonarc.contracts.presets import load

LATEST = "latest"
RETRAIN = ("retrain.only_new=true", "retrain.warm_start=fitting")
"""What a scheduled run does unless its overrides say otherwise: it goes on from the champion, with what is new."""
Outcome = Literal["running", "succeeded", "nothing_new", "refused", "failed"]


class Schedule(BaseModel):
    """When to retrain, with what settings, and by which version of the pipeline.

    Setting a schedule twice leaves one: the name is its identity.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]{0,50}[a-z0-9])?$")]
    cron: str
    """Five fields: minute, hour, day of month, month, day of week."""
    timezone: str = "UTC"
    """An IANA name: a time of day stays one across the change to summer time."""
    preset: str
    overrides: tuple[str, ...] = ()
    version: str = LATEST
    """`latest`, or the name of a pipeline version to stay with."""
    catch_up: Literal["one", "none"] = "one"
    """What follows fires that were missed while nothing could run: one run, since each takes all that is new, or none
    until the next."""
    paused: bool = False
    spec_sha256: str = ""
    """Hash of the compiled pipeline at the time of setting; empty until set."""

    def settings(self) -> tuple[str, ...]:
        """The overrides of a run of this schedule, its own last."""
        return (*RETRAIN, *self.overrides)

    def config(self) -> SonarcConfig:
        """The tree of a run of this schedule.

        Raises:
            ConfigError: preset or overrides do not make one.
        """
        return load(self.preset, self.settings())


def schedule_of(**given: Any) -> Schedule:
    """A schedule from what somebody typed.

    Raises:
        ConfigError: a field is not what it must be; each is named with its value.
    """
    try:
        return Schedule(**given)
    except ValidationError as error:
        raise ConfigError(f"The schedule is not valid: {explain(error)}", "`sonarc schedule set --help`") from error


class ScheduleState(BaseModel):
    """A schedule, and where it stands."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schedule: Schedule
    next_fire: datetime | None
    """With its time zone; None while paused."""
    last_fire: datetime | None = None
    last_outcome: Outcome | None = None
    """How the last run ended, or that it goes on; None before the first."""


class Schedules(Protocol):
    """Who keeps schedules: Kubeflow's recurring runs, or the supervised process of one machine."""

    def set(self, schedule: Schedule) -> ScheduleState:
        """Make it so, whatever was kept under this name before."""
        ...

    def list(self) -> list[ScheduleState]:
        """All of them, by name."""
        ...

    def pause(self, name: str, *, paused: bool = True) -> ScheduleState:
        """Stop firing, or go on.

        Raises:
            ConfigError: nothing is kept under this name.
        """
        ...

    def delete(self, name: str) -> None:
        """Forget it. What is running goes on.

        Raises:
            ConfigError: nothing is kept under this name.
        """
        ...
