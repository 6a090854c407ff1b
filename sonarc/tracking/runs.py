"""Runs in MLflow: one parent run a pipeline run, one nested run a stage, one below that a trial.

Nothing here uses MLflow's global active run, so stages in several processes and threads never mix.
A server that dies delays a stage by seconds: what it should have been told waits (`sonarc.tracking.outbox`).
"""

from __future__ import annotations

import json
import math
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sonarc.contracts.errors import SonarcError, TrackingError
from sonarc.contracts.result import StageResult, TrackingRef
from sonarc.tracking import mlflow_client
from sonarc.tracking.messages import Data, End, Kept, Message, Metrics, Params, Start, Status, Tags
from sonarc.tracking.outbox import AWAITED, Outbox, replay
from sonarc.tracking.system import watched

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from mlflow import MlflowClient

EXPERIMENT = "sonarc"
"""The experiment of the pipeline's own runs."""
PIPELINE_RUN_TAG = "sonarc.pipeline_run"
"""Id of the Kubeflow run that a parent run stands for."""
NAME_TAG = "mlflow.runName"
PARENT_TAG = "mlflow.parentRunId"
STAGE_TAG = "sonarc.stage"
OUTCOME_TAG = "sonarc.outcome"
"""How a pipeline run ended: succeeded, nothing_new, refused or failed."""
FLUSH_SECONDS = 2.0
_MAX_DIGEST = 36
_MAX_METRICS, _MAX_PARAMS, _MAX_VALUE = 500, 100, 6_000  # MLflow's limits of one log_batch call


class StageRun(Protocol):
    """What a stage may record."""

    @property
    def id(self) -> str | None:
        """MLflow's run id; None when nothing is tracked."""

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Record settings; nested mappings become dotted names."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Record points of curves, sent in batches."""

    def log_tags(self, tags: Mapping[str, str]) -> None:
        """Record tags."""

    def log_file(self, path: Path, folder: str = "") -> None:
        """Keep a copy of a local file with the run."""

    def log_dict(self, doc: Any, name: str) -> None:
        """Keep a JSON document with the run as the file `name`."""

    def log_data(self, name: str, digest: str, source: str, facts: Mapping[str, Any], context: str) -> None:
        """Record a dataset that the stage read: its hash, where it lies, what it holds, what it was read for."""

    def child(self, name: str) -> AbstractContextManager[StageRun]:
        """A run nested below this one, such as a trial."""


class NullRun:
    """Records nothing: no tracking is configured."""

    id: str | None = None

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Nothing."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Nothing."""

    def log_tags(self, tags: Mapping[str, str]) -> None:
        """Nothing."""

    def log_file(self, path: Path, folder: str = "") -> None:
        """Nothing."""

    def log_dict(self, doc: Any, name: str) -> None:
        """Nothing."""

    def log_data(self, name: str, digest: str, source: str, facts: Mapping[str, Any], context: str) -> None:
        """Nothing."""

    @contextmanager
    def child(self, name: str) -> Iterator[StageRun]:
        """Another one of these."""
        yield NullRun()


class MlflowRun:
    """A run in MLflow, or one that will be as soon as MLflow is back."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._lock = threading.RLock()  # curves of the machine come from a thread of their own
        self._metrics: list[tuple[str, float, int, int]] = []
        self._flushed = time.monotonic()

    @property
    def id(self) -> str | None:
        return self._outbox.run_id

    def log_params(self, params: Mapping[str, Any]) -> None:
        entries = [(name, text[:_MAX_VALUE]) for name, text in flatten(params).items()]
        for start in range(0, len(entries), _MAX_PARAMS):
            self._send(Params(values=dict(entries[start : start + _MAX_PARAMS])))

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        now = _now()
        # MLflow would store an infinity as 1.8e308, which plots as a value; NaN stays what it is.
        points = [(name, float(v) if math.isfinite(v) else math.nan, now, step or 0) for name, v in metrics.items()]
        with self._lock:
            self._metrics += points
            if len(self._metrics) >= _MAX_METRICS or time.monotonic() - self._flushed > FLUSH_SECONDS:
                self._flush()

    def log_tags(self, tags: Mapping[str, str]) -> None:
        self._send(Tags(values=dict(tags)))

    def log_file(self, path: Path, folder: str = "") -> None:
        self._send(Kept(name=path.name, folder=folder, data=path.read_bytes()))

    def log_dict(self, doc: Any, name: str) -> None:
        text = json.dumps(doc, indent=2, sort_keys=True, ensure_ascii=False)
        folder, _, file = name.rpartition("/")
        self._send(Kept(name=file, folder=folder, data=text.encode("utf-8")))

    def log_data(self, name: str, digest: str, source: str, facts: Mapping[str, Any], context: str) -> None:
        profile = json.dumps(dict(facts), sort_keys=True)
        self._send(Data(name=name, digest=digest[:_MAX_DIGEST], source=source, profile=profile, context=context))

    @contextmanager
    def child(self, name: str) -> Iterator[StageRun]:
        parent = self.id or AWAITED + self._outbox.id
        with _nested(self._outbox.ref, parent, name, {"sonarc.trial": name}) as run:
            yield run

    def close(self, status: Status) -> None:
        """End the run; what the server cannot be told now waits in the store."""
        self._send(End(status=status, at=_now()))
        self._outbox.deliver()
        self._outbox.leave()

    def _flush(self) -> None:
        self._flushed = time.monotonic()
        points, self._metrics = self._metrics, []
        for start in range(0, len(points), _MAX_METRICS):
            self._outbox.put(Metrics(points=tuple(points[start : start + _MAX_METRICS])))

    def _send(self, message: Message) -> None:
        with self._lock:
            if self._metrics:
                self._flush()
            self._outbox.put(message)


def _now() -> int:
    return int(time.time() * 1000)


def flatten(params: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested mappings as dotted names; lists as JSON."""
    flat: dict[str, str] = {}
    for name, value in params.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple):
            flat[prefix + name] = json.dumps(value, default=str)
        else:
            flat[prefix + name] = str(value)
    return flat


def open_parent(
    uri: str, experiment: str, name: str, params: Mapping[str, Any], tags: Mapping[str, str], outbox: str = ""
) -> TrackingRef:
    """Begin the parent run of a pipeline run, creating the database and the experiment where needed.

    A run that Kubeflow's own MLflow plugin made is used instead of a new one: MLFLOW_RUN_ID names the run it opened for
    this task, below the pipeline run's.

    Args:
        uri: a tracking server, or `sqlite:///<file>`, whose artifacts then lie beside the file.
        experiment: name of the experiment.
        name: the run's name.
        params: settings; nested mappings become dotted names.
        tags: searchable labels.
        outbox: URI of a folder for what stages cannot tell the server while it is away.

    Raises:
        TrackingError: the server cannot be reached or refuses.
    """
    if uri.startswith("http") and "@" in uri.split("://", 1)[-1].split("/", 1)[0]:
        raise TrackingError(
            "The tracking URI carries credentials.",
            "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD instead.",
        )
    with mlflow_client.explained(uri):
        mlflow_client.initialise(uri)
        client = mlflow_client.client(uri)
        if injected := os.environ.get("MLFLOW_RUN_ID"):
            given = client.get_run(injected)
            run_id = given.data.tags.get(PARENT_TAG, injected)
            experiment = client.get_experiment(given.info.experiment_id).name
        else:
            created = client.create_run(_experiment_id(client, uri, experiment), run_name=name, tags=dict(tags))
            run_id = created.info.run_id
        ref = TrackingRef(uri=uri, experiment=experiment, parent_run_id=run_id, outbox=outbox)
        run = MlflowRun(_parent_outbox(ref))
        run.log_tags({NAME_TAG: name, **tags})
        run.log_params(params)
    return ref


def find_parent(uri: str, experiment: str, pipeline_run: str, outbox: str = "") -> TrackingRef | None:
    """The parent run that was opened for a Kubeflow run; None: there is none.

    Args:
        uri, experiment, outbox: as for `open_parent`.
        pipeline_run: what it was tagged with as `PIPELINE_RUN_TAG`.

    Raises:
        TrackingError: the server cannot be reached or refuses.
    """
    with mlflow_client.explained(uri):
        mlflow_client.initialise(uri)
        client = mlflow_client.client(uri)
        found = client.get_experiment_by_name(experiment)
        if found is None:
            return None
        wanted = f"tags.`{PIPELINE_RUN_TAG}` = '{pipeline_run}'"
        runs = client.search_runs([found.experiment_id], wanted, max_results=1, order_by=["attributes.start_time ASC"])
    if not runs:
        return None
    return TrackingRef(uri=uri, experiment=experiment, parent_run_id=runs[0].info.run_id, outbox=outbox)


def stages_of(ref: TrackingRef) -> set[str]:
    """The stages that a pipeline run has told of, finished or from the cache.

    Raises:
        TrackingError: the server cannot be reached or refuses.
    """
    with mlflow_client.explained(ref.uri):
        client = mlflow_client.client(ref.uri)
        experiment = client.get_run(ref.parent_run_id).info.experiment_id
        nested = client.search_runs([experiment], f"tags.`{PARENT_TAG}` = '{ref.parent_run_id}'")
    return {run.data.tags[STAGE_TAG] for run in nested if run.info.status == "FINISHED" and STAGE_TAG in run.data.tags}


def _experiment_id(client: MlflowClient, uri: str, name: str) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, artifact_location=_artifact_location(uri, name)))
        except MlflowException as error:
            found = client.get_experiment_by_name(name)  # another process was faster
            if found is None:
                raise error
    if found.lifecycle_stage == "deleted":
        raise TrackingError(f"The experiment {name!r} is deleted.", "Restore it, or use another name.")
    return str(found.experiment_id)


def _artifact_location(uri: str, experiment: str) -> str | None:
    root = mlflow_client.artifact_root(uri)
    return None if root is None else f"{root}/{experiment}"


def parent_run(ref: TrackingRef | None) -> StageRun:
    """The parent run itself, to log what belongs to the pipeline run as a whole: the summary, the report.

    Close nothing: call `close_parent` when the pipeline run ends.
    """
    return NullRun() if ref is None else _Immediate(_parent_outbox(ref))


def _parent_outbox(ref: TrackingRef) -> Outbox:
    return Outbox(ref, Start(parent="", name="", tags={}, at=_now()), ref.parent_run_id)


class _Immediate(MlflowRun):
    """A run whose messages are sent, or left in the store, at once, as nobody closes it."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        super().log_metrics(metrics, step)
        self._flush()
        self._outbox.leave()

    def _send(self, message: Message) -> None:
        super()._send(message)
        self._outbox.leave()


def close_parent(ref: TrackingRef | None, status: Status) -> None:
    """End the parent run. A server that is gone is a warning: the pipeline's own outcome stands."""
    if ref is None:
        return
    MlflowRun(_parent_outbox(ref)).close(status)
    replay(ref)


@contextmanager
def stage_run(ref: TrackingRef | None, stage: str, key: str) -> Iterator[StageRun]:
    """The nested run of one stage, with curves of its machine.

    It is FINISHED when the block ends, FAILED on an error, KILLED on an interrupt.

    Args:
        ref: the parent run; None: nothing is tracked.
        stage: the stage's name, which is the run's name too.
        key: the stage's key.
    """
    if ref is None:
        yield NullRun()
        return
    with _stage(ref, stage, key) as run, watched(run):
        if run.id is not None:
            replay(ref)
        yield run


def _stage(ref: TrackingRef, stage: str, key: str) -> AbstractContextManager[StageRun]:
    return _nested(ref, ref.parent_run_id, stage, {STAGE_TAG: stage, "sonarc.key": key})


def record_cached(ref: TrackingRef | None, result: StageResult) -> str | None:
    """Log a nested run for a stage whose earlier result stands in.

    It is tagged `cached_from` with the run that did the work.

    Returns:
        The nested run's id, or None when nothing is tracked.
    """
    if ref is None:
        return None
    with _stage(ref, result.stage, result.key) as run:
        run.log_tags({"cached_from": result.mlflow_run_id or result.key})
        run.log_metrics(result.metrics)
        return run.id


@contextmanager
def _nested(ref: TrackingRef, parent: str, name: str, tags: Mapping[str, str]) -> Iterator[StageRun]:
    outbox = Outbox(ref, Start(parent=parent, name=name, tags={NAME_TAG: name, **tags}, at=_now()))
    with mlflow_client.explained(ref.uri):
        outbox.deliver()
    run = MlflowRun(outbox)
    status: Status = "FAILED"
    try:
        yield run
        status = "FINISHED"
    except SonarcError as error:
        run.log_tags({"sonarc.error": error.code, "sonarc.message": str(error)[:_MAX_VALUE]})
        raise
    except (KeyboardInterrupt, SystemExit):
        status = "KILLED"
        raise
    finally:
        run.close(status)
