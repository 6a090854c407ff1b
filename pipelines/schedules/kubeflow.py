"""Schedules that Kubeflow keeps: recurring runs.

A recurring run cannot be changed. So a new one is made, disabled, and takes the place of the one before in steps that
may be interrupted anywhere: at no time do two of them fire, and setting the schedule again ends what was begun.
"""

from __future__ import annotations

import builtins
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal

import kfp_server_api as api
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipelines.kubeflow.client import Kubeflow, Missing, named
from pipelines.kubeflow.cron import six_fields
from pipelines.kubeflow.parameters import RunParameters
from pipelines.kubeflow.profile import Profile
from pipelines.kubeflow.runs import outcome, recent
from pipelines.kubeflow.versions import deployed
from pipelines.schedules.cron import next_fire
from pipelines.schedules.model import LATEST, Outcome, Schedule, ScheduleState
from sonarc.contracts.errors import ConfigError

logger = logging.getLogger(__name__)
Now = Callable[[], datetime]
EARLIER = 5
"""So many recurring runs that this one replaced are remembered, by which the last fire is known."""


class Kept(BaseModel):
    """What a recurring run's description says, as JSON."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    schema_: Literal["sonarc.schedule/1"] = Field(default="sonarc.schedule/1", alias="schema")
    schedule: Schedule
    """As it was set; whether it is paused, Kubeflow says."""
    revision: int
    """Counts how often it was set: of two, the higher one counts."""
    earlier: tuple[str, ...] = ()
    """Ids of the recurring runs before this one, the last one first."""


class Recurring(BaseModel):
    """A recurring run of ours."""

    model_config = ConfigDict(frozen=True)

    id: str
    enabled: bool
    kept: Kept

    @property
    def order(self) -> tuple[int, str]:
        """Of two that were set at one time everybody takes the same one for the later."""
        return self.kept.revision, self.id


def _now() -> datetime:
    return datetime.now(UTC)


class KubeflowSchedules:
    """The verbs of `pipelines.schedules.model.Schedules` on a cluster.

    One run at a time; fires that were missed, by an outage or in a pause, are made up for by one run. A run that is
    still going when its schedule is set anew is not waited for.

    Args:
        now: the time, with a zone.
    """

    def __init__(self, profile: Profile, now: Now = _now) -> None:
        self._profile, self._now = profile, now
        self._kubeflow = Kubeflow(profile.kubeflow)

    def set(self, schedule: Schedule) -> ScheduleState:
        """See `Schedules`.

        Raises:
            ConfigError: cron, zone, settings or version are not valid here; nothing is changed.
        """
        self._accept(schedule)
        version = deployed(self._kubeflow, schedule.version)
        parameters = RunParameters.of(self._profile, schedule.config()).given_to(version.spec)
        schedule = schedule.model_copy(update={"spec_sha256": version.spec.sha256()})
        reference = api.V2beta1PipelineVersionReference(version.pipeline_id)  # without a version: always the latest
        if schedule.version != LATEST:
            reference.pipeline_version_id = version.version_id
        before = self._named(schedule.name)
        if not (len(before) == 1 and self._is(before[0], schedule)):
            kept = Kept(
                schedule=schedule,
                revision=1 + max((entry.kept.revision for entry in before), default=0),
                earlier=_ids(before)[:EARLIER],
            )
            self._create(kept, reference, parameters)
            self._settle(schedule.name, paused=schedule.paused)
        return self._state(self._one(schedule.name))

    def list(self) -> builtins.list[ScheduleState]:
        """See `Schedules`."""
        by_name: dict[str, list[Recurring]] = {}
        for entry in self._all():
            by_name.setdefault(entry.kept.schedule.name, []).append(entry)
        return [self._state(_firing(by_name[name])) for name in sorted(by_name)]

    def pause(self, name: str, *, paused: bool = True) -> ScheduleState:
        """See `Schedules`. One that goes on makes up for the fires in between by one run."""
        self._one(name)
        self._settle(name, paused=paused)
        return self._state(self._one(name))

    def delete(self, name: str) -> None:
        """See `Schedules`."""
        self._one(name)
        for entry in self._named(name):
            self._verb("disable", entry)
            self._verb("delete", entry)

    def _accept(self, schedule: Schedule) -> None:
        here = self._profile.kubeflow.timezone
        if schedule.timezone != here:
            raise ConfigError(
                f"The schedule is in {schedule.timezone}; this Kubeflow fires all of them by the clock of {here}.",
                f"Use {here}, or set CRON_SCHEDULE_TIMEZONE of ml-pipeline-scheduledworkflow and kubeflow.timezone in "
                "the profile.",
            )
        if schedule.catch_up != "one":
            raise ConfigError(
                f"Kubeflow makes up for missed fires by one run; it cannot do {schedule.catch_up!r}.",
                "Use catch_up one.",
            )
        six_fields(schedule.cron)
        next_fire(schedule.cron, schedule.timezone, self._now())

    def _create(self, kept: Kept, reference: Any, parameters: dict[str, Any]) -> None:
        """Make the recurring run, which does not fire yet."""
        experiment, about = self._kubeflow.experiment_id, kept.model_dump_json(by_alias=True)
        body = api.V2beta1RecurringRun(
            display_name=kept.schedule.name,
            description=about,
            experiment_id=experiment,
            mode=api.RecurringRunMode.DISABLE,
            trigger=api.V2beta1Trigger(cron_schedule=api.V2beta1CronSchedule(cron=six_fields(kept.schedule.cron))),
            max_concurrency="1",
            no_catchup=True,
            pipeline_version_reference=reference,
            runtime_config=api.V2beta1RuntimeConfig(parameters=parameters),
            service_account=self._profile.kubeflow.service_account or None,
        )
        service = self._kubeflow.recurring_runs
        self._kubeflow.make(
            lambda: self._kubeflow.ask(service.recurring_run_service_create_recurring_run, body),
            lambda: next((entry for entry in self._named(kept.schedule.name) if entry.kept == kept), None),
        )

    def _settle(self, name: str, *, paused: bool) -> None:
        """Leave one recurring run under a name: the latest, firing unless paused."""
        *olds, latest = sorted(self._named(name), key=lambda entry: entry.order)
        for old in olds:
            self._verb("disable", old)
        self._verb("disable" if paused else "enable", latest)
        for old in olds:
            self._verb("delete", old)

    def _verb(self, verb: Literal["enable", "disable", "delete"], entry: Recurring) -> None:
        """One that somebody else deleted meanwhile needs nothing more."""
        if verb != "delete" and entry.enabled == (verb == "enable"):
            return
        ask = getattr(self._kubeflow.recurring_runs, f"recurring_run_service_{verb}_recurring_run")
        try:
            self._kubeflow.ask(ask, entry.id)
        except Missing:
            logger.info("The recurring run %s is gone already.", entry.id)

    def _is(self, entry: Recurring, schedule: Schedule) -> bool:
        return entry.kept.schedule == schedule and entry.enabled != schedule.paused

    def _all(self, **given: Any) -> builtins.list[Recurring]:
        listed = self._kubeflow.every(
            self._kubeflow.recurring_runs.recurring_run_service_list_recurring_runs,
            "recurring_runs",
            experiment_id=self._kubeflow.experiment_id,
            **given,
        )
        found = []
        for entry in listed:
            try:
                kept = Kept.model_validate_json(entry.description or "")
            except ValidationError:
                continue  # somebody else's
            found.append(Recurring(id=entry.recurring_run_id, enabled=entry.status == "ENABLED", kept=kept))
        return found

    def _named(self, name: str) -> builtins.list[Recurring]:
        return [entry for entry in self._all(filter=named(name)) if entry.kept.schedule.name == name]

    def _one(self, name: str) -> Recurring:
        found = self._named(name)
        if not found:
            raise ConfigError(f"There is no schedule {name!r}.", "`sonarc schedule list` shows them.")
        return _firing(found)

    def _state(self, entry: Recurring) -> ScheduleState:
        schedule = entry.kept.schedule.model_copy(update={"paused": not entry.enabled})
        fired, ended = self._last(entry)
        due = None if schedule.paused else next_fire(schedule.cron, schedule.timezone, self._now())
        return ScheduleState(schedule=schedule, next_fire=due, last_fire=fired, last_outcome=ended)

    def _last(self, entry: Recurring) -> tuple[datetime | None, Outcome | None]:
        """When it fired last, and what came of it."""
        for key in (entry.id, *entry.kept.earlier):
            for run in recent(self._kubeflow, 1, schedule_id=key):
                return run.created, outcome(self._kubeflow, run)
        return None, None


def _firing(found: builtins.list[Recurring]) -> Recurring:
    """Of the recurring runs under a name: the one that fires; if none does, the latest."""
    if len(found) > 1:
        logger.warning("%s was set half only: set it again.", found[0].kept.schedule.name)
    return max(found, key=lambda entry: (entry.enabled, entry.order))


def _ids(before: builtins.list[Recurring]) -> tuple[str, ...]:
    """The recurring runs of a name, and those that they replaced, the last one first."""
    latest_first = sorted(before, key=lambda entry: entry.order, reverse=True)
    ids = [key for entry in latest_first for key in (entry.id, *entry.kept.earlier)]
    return tuple(dict.fromkeys(ids))
