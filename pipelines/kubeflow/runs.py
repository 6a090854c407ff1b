"""Runs of the pipeline on Kubeflow: start one, list them, end one."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import kfp_server_api as api

from pipelines.kubeflow.client import Kubeflow, Missing, named
from pipelines.kubeflow.parameters import RunParameters
from pipelines.kubeflow.versions import Deployed
from pipelines.schedules.model import Outcome
from sonarc.contracts.errors import ConfigError

ENDED = ("SUCCEEDED", "FAILED", "SKIPPED", "CANCELED")


@dataclass(frozen=True)
class Run:
    """A run, as Kubeflow tells of it.

    Attributes:
        state: Kubeflow's word: PENDING, RUNNING, SUCCEEDED, FAILED, CANCELING, CANCELED, …
        version_id: of the pipeline's version.
        schedule_id: of the recurring run that started it; empty: somebody did.
        error: why it failed, in Kubeflow's words.
    """

    id: str
    name: str
    state: str
    created: datetime | None
    finished: datetime | None
    version_id: str
    schedule_id: str
    error: str

    @classmethod
    def of(cls, entry: Any) -> Run:
        """From Kubeflow's answer."""
        reference = entry.pipeline_version_reference
        return cls(
            id=entry.run_id,
            name=entry.display_name or "",
            state=entry.state or "PENDING",
            created=entry.created_at,
            finished=entry.finished_at if entry.state in ENDED else None,
            version_id=(reference.pipeline_version_id if reference else "") or "",
            schedule_id=entry.recurring_run_id or "",
            error=(entry.error.message if entry.error else "") or "",
        )


def submit(kubeflow: Kubeflow, version: Deployed, parameters: RunParameters, name: str = "") -> Run:
    """Start a run of a deployed version. A lost answer starts no second one: runs are found by their name.

    Args:
        name: what to call it; empty: by preset, time and a random part.

    Raises:
        ConfigError: the version asks for other parameters.
    """
    given = parameters.given_to(version.spec)
    started = f"{datetime.now(UTC):%Y%m%d-%H%M%S}"
    unique = name or f"{parameters.config.preset}-{started}-{uuid.uuid4().hex[:6]}"
    experiment = kubeflow.experiment_id
    body = api.V2beta1Run(
        display_name=unique,
        experiment_id=experiment,
        pipeline_version_reference=api.V2beta1PipelineVersionReference(version.pipeline_id, version.version_id),
        runtime_config=api.V2beta1RuntimeConfig(parameters=given),
        service_account=kubeflow.config.service_account or None,
    )

    def find() -> Any:
        listed = kubeflow.every(
            kubeflow.runs.run_service_list_runs, "runs", experiment_id=experiment, filter=named(unique)
        )
        return next(listed, None)

    if name and find() is not None:
        raise ConfigError(f"There is a run called {name!r} already.", "Choose another name.")
    return Run.of(kubeflow.make(lambda: kubeflow.ask(kubeflow.runs.run_service_create_run, body), find))


def recent(kubeflow: Kubeflow, count: int, schedule_id: str = "") -> list[Run]:
    """The last runs of the experiment, newest first; of one recurring run, where its id is given."""
    wanted = {"filter": named(schedule_id, "recurring_run_id")} if schedule_id else {}
    listed = kubeflow.every(
        kubeflow.runs.run_service_list_runs,
        "runs",
        experiment_id=kubeflow.experiment_id,
        sort_by="created_at desc",
        **wanted,
    )
    return [Run.of(entry) for entry, _ in zip(listed, range(count), strict=False)]


def cancel(kubeflow: Kubeflow, which: str) -> tuple[Run, bool]:
    """End a run, named by its id or its name.

    Returns:
        The run, and whether it was going on.

    Raises:
        ConfigError: there is no such run, or several have that name.
    """
    run = _one(kubeflow, which)
    if run.state in ENDED:
        return run, False
    kubeflow.ask(kubeflow.runs.run_service_terminate_run, run.id)
    return run, True


def _one(kubeflow: Kubeflow, which: str) -> Run:
    try:
        return Run.of(kubeflow.ask(kubeflow.runs.run_service_get_run, which))
    except Missing:
        listed = kubeflow.every(
            kubeflow.runs.run_service_list_runs,
            "runs",
            experiment_id=kubeflow.experiment_id,
            filter=named(which),
        )
        found = [Run.of(entry) for entry in listed]
    if len(found) != 1:
        count = f"{len(found)} runs are called" if found else "There is no run"
        raise ConfigError(f"{count} {which!r}.", "`sonarc pipeline runs` lists them with their ids.")
    return found[0]


def outcome(kubeflow: Kubeflow, run: Run) -> Outcome:
    """How a run ended, in our words: Kubeflow says SUCCEEDED of one that the gate refused, too."""
    if run.state not in ENDED:
        return "running"
    if run.state != "SUCCEEDED":
        return "failed"
    details = kubeflow.ask(kubeflow.runs.run_service_get_run, run.id).run_details
    done = {
        task.display_name for task in (details.task_details if details else None) or () if task.state == "SUCCEEDED"
    }
    if done and "encode" not in done:
        return "nothing_new"
    if "gate" in done and "promote" not in done:
        return "refused"
    return "succeeded"
