"""Runs in MLflow: one parent run a pipeline run, one nested run a stage, one below that a trial.

Nothing here uses MLflow's global active run, so stages in several processes and threads never mix.
A server that dies while a stage works delays it by seconds: what it should have been told waits in
an outbox, is offered again from time to time, and once more at the end.
"""

from __future__ import annotations

import json
import logging
import math
import os
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from sonarc.contracts.errors import SonarcError, TrackingError
from sonarc.contracts.result import StageResult, TrackingRef
from sonarc.tracking import mlflow_client

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from mlflow import MlflowClient

log = logging.getLogger(__name__)

Status = Literal["FINISHED", "FAILED", "KILLED"]

PARENT_TAG = "mlflow.parentRunId"
NAME_TAG = "mlflow.runName"
FLUSH_SECONDS = 2.0
RETRY_SECONDS = 30.0
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

    @contextmanager
    def child(self, name: str) -> Iterator[StageRun]:
        """Another one of these."""
        yield NullRun()


class _Outbox:
    """Messages to the server in order; kept while it cannot be reached."""

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], object]] = deque()
        self._retry_at = 0.0

    def put(self, send: Callable[[], object]) -> None:
        self._waiting.append(send)
        if time.monotonic() >= self._retry_at:
            self.deliver()

    def deliver(self) -> None:
        """Send what waits; stop at the first failure that time may heal, raise on any other."""
        while self._waiting:
            try:
                self._waiting[0]()
            except Exception as error:
                if not mlflow_client.transient(error):
                    self._waiting.popleft()
                    raise
                log.warning("MLflow cannot be reached (%s); %d messages wait.", error, len(self._waiting))
                self._retry_at = time.monotonic() + RETRY_SECONDS
                return
            self._waiting.popleft()
        self._retry_at = 0.0

    def __len__(self) -> int:
        return len(self._waiting)


class MlflowRun:
    """A run that exists in MLflow."""

    def __init__(self, ref: TrackingRef, run_id: str) -> None:
        self._ref, self._run_id = ref, run_id
        self._client: MlflowClient = mlflow_client.client(ref.uri)
        self._outbox = _Outbox()
        self._metrics: list[tuple[str, float, int, int]] = []
        self._flushed = time.monotonic()

    @property
    def id(self) -> str:
        return self._run_id

    def log_params(self, params: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        entries = [Param(name, text[:_MAX_VALUE]) for name, text in flatten(params).items()]
        for start in range(0, len(entries), _MAX_PARAMS):
            batch = entries[start : start + _MAX_PARAMS]
            self._send(partial(self._client.log_batch, self._run_id, params=batch))

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        now = int(time.time() * 1000)
        for name, value in metrics.items():
            # MLflow would store an infinity as 1.8e308, which plots as a value; NaN stays what it is.
            self._metrics.append((name, float(value) if math.isfinite(value) else math.nan, now, step or 0))
        if len(self._metrics) >= _MAX_METRICS or time.monotonic() - self._flushed > FLUSH_SECONDS:
            self._flush()

    def log_tags(self, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        entries = [RunTag(name, value) for name, value in tags.items()]
        self._send(partial(self._client.log_batch, self._run_id, tags=entries))

    def log_file(self, path: Path, folder: str = "") -> None:
        self._send(partial(self._client.log_artifact, self._run_id, str(path), folder or None))

    def log_dict(self, doc: Any, name: str) -> None:
        text = json.dumps(doc, indent=2, sort_keys=True, ensure_ascii=False)
        self._send(partial(self._write, name, text))

    @contextmanager
    def child(self, name: str) -> Iterator[StageRun]:
        with _nested(self._ref, self._run_id, name, {"sonarc.trial": name}) as run:
            yield run

    def close(self, status: Status) -> None:
        """Deliver everything and end the run; what the server would not take is counted in the log."""
        self._flush()
        self._outbox.put(partial(self._client.set_terminated, self._run_id, status))
        self._outbox.deliver()
        if self._outbox:
            log.warning("MLflow run %s: %d messages could not be delivered.", self._run_id, len(self._outbox))

    def _write(self, name: str, text: str) -> None:
        folder, _, file = name.rpartition("/")
        with tempfile.TemporaryDirectory() as scratch:
            place = Path(scratch) / file
            place.write_text(text, encoding="utf-8")
            self._client.log_artifact(self._run_id, str(place), folder or None)

    def _flush(self) -> None:
        from mlflow.entities import Metric

        self._flushed = time.monotonic()
        entries = [Metric(name, value, at, step) for name, value, at, step in self._metrics]
        self._metrics = []
        for start in range(0, len(entries), _MAX_METRICS):
            batch = entries[start : start + _MAX_METRICS]
            self._outbox.put(partial(self._client.log_batch, self._run_id, metrics=batch))

    def _send(self, send: Callable[[], object]) -> None:
        if self._metrics:
            self._flush()
        self._outbox.put(send)


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
    uri: str, experiment: str, name: str, params: Mapping[str, Any], tags: Mapping[str, str]
) -> TrackingRef:
    """Begin the parent run of a pipeline run, creating the database and the experiment where needed.

    A run id in MLFLOW_RUN_ID, as Kubeflow injects it, is used instead of a new run.

    Args:
        uri: a tracking server, or `sqlite:///<file>`, whose artifacts then lie beside the file.
        experiment: name of the experiment.
        name: the run's name.
        params: settings; nested mappings become dotted names.
        tags: searchable labels.

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
        if run_id := os.environ.get("MLFLOW_RUN_ID"):
            experiment = client.get_experiment(client.get_run(run_id).info.experiment_id).name
        else:
            created = client.create_run(_experiment_id(client, uri, experiment), run_name=name)
            run_id = created.info.run_id
        ref = TrackingRef(uri=uri, experiment=experiment, parent_run_id=run_id)
        run = MlflowRun(ref, run_id)
        run.log_tags({NAME_TAG: name, **tags})
        run.log_params(params)
    return ref


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
    return NullRun() if ref is None else _Immediate(ref, ref.parent_run_id)


class _Immediate(MlflowRun):
    """A run whose metrics are sent at once, as nobody closes it."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        super().log_metrics(metrics, step)
        self._flush()


def close_parent(ref: TrackingRef | None, status: Status) -> None:
    """End the parent run. A server that is gone is a warning: the pipeline's own outcome stands."""
    if ref is None:
        return
    MlflowRun(ref, ref.parent_run_id).close(status)


@contextmanager
def stage_run(ref: TrackingRef | None, stage: str, key: str) -> Iterator[StageRun]:
    """The nested run of one stage: FINISHED when the block ends, FAILED on an error, KILLED on an interrupt.

    Args:
        ref: the parent run; None: nothing is tracked.
        stage: the stage's name, which is the run's name too.
        key: the stage's key.
    """
    if ref is None:
        yield NullRun()
        return
    with _nested(ref, ref.parent_run_id, stage, {"sonarc.stage": stage, "sonarc.key": key}) as run:
        yield run


def record_cached(ref: TrackingRef | None, result: StageResult) -> str | None:
    """Log a nested run for a stage whose earlier result stands in.

    It is tagged `cached_from` with the run that did the work.

    Returns:
        The nested run's id, or None when nothing is tracked.
    """
    with stage_run(ref, result.stage, result.key) as run:
        run.log_tags({"cached_from": result.mlflow_run_id or result.key})
        run.log_metrics(result.metrics)
        return run.id


@contextmanager
def _nested(ref: TrackingRef, parent_id: str, name: str, tags: Mapping[str, str]) -> Iterator[StageRun]:
    run = _create(ref, parent_id, name, tags)
    if run is None:
        yield NullRun()
        return
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


def _create(ref: TrackingRef, parent_id: str, name: str, tags: Mapping[str, str]) -> MlflowRun | None:
    """A new run below `parent_id`; None, with a warning, while the server cannot be reached."""
    client = mlflow_client.client(ref.uri)
    try:
        with mlflow_client.explained(ref.uri):
            experiment_id = client.get_run(ref.parent_run_id).info.experiment_id
            created = client.create_run(
                experiment_id, run_name=name, tags={PARENT_TAG: parent_id, NAME_TAG: name, **tags}
            )
    except TrackingError as error:
        if error.__cause__ is None or not mlflow_client.transient(error.__cause__):
            raise
        log.warning("%s The stage %s goes on untracked.", error, name)
        return None
    return MlflowRun(ref, created.info.run_id)
