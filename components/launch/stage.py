"""One stage: from the cache, in this very process, or on Ray; its record and its errors beside the run's progress."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from components.launch.backend import Backend, Ended, StageJob
from components.launch.outside import with_outside
from components.launch.records import StageFailed, StageRecord
from components.launch.settings import LauncherConfig, read_launcher
from sonarc.contracts import log, store
from sonarc.contracts.config import SonarcConfig
from sonarc.contracts.errors import NothingNew, SonarcError, StageError, error_of
from sonarc.contracts.progress import ProgressWriter
from sonarc.contracts.result import (
    StageRequest,
    StageResult,
    Stopwatch,
    TrackingRef,
    cached_result,
    failure_of,
    read_result,
)
from sonarc.contracts.stage import Work, execute
from sonarc.contracts.stages import STAGES

RUN_VARIABLES = ("KFP_RUN_ID", "WORKFLOW_ID")
"""Environment of a pod that names the pipeline run, from the downward API."""


def launch(
    stage: str,
    *,
    config: str,
    store_uri: str,
    tracking: str,
    ray_address: str,
    progress: str,
    inputs: dict[str, str],
    run_name: str = "",
) -> StageRecord:
    """Run one stage, or find that it is done.

    Args:
        stage: a name in `sonarc.contracts.stages.STAGES`.
        config: the whole config tree as JSON.
        store_uri: the store's root.
        tracking: JSON of a `TrackingRef`, or empty.
        ray_address: address of the Ray jobs API, `http://host:port`.
        progress: local path of the run's progress.jsonl, or empty.
        inputs: upstream stage → URI of its folder.
        run_name: the pipeline run, by which `cleanup` finds what is left of it; empty: KFP_RUN_ID or WORKFLOW_ID of
            the environment, else the tracked parent run, else the folder of `progress`.

    Raises:
        StageError: the stage failed; the message is the stage's own.
        NothingNew: ingest found nothing that the champion was not made from, and only what is new was asked for.
    """
    log.setup()
    request = StageRequest(
        stage=stage,
        store=store_uri,
        config=SonarcConfig.model_validate_json(config),
        inputs=inputs,
        tracking=TrackingRef.model_validate_json(tracking) if tracking else None,
        progress=progress,
    )
    try:
        request = with_outside(request)
        record = _perform(request, ray_address, run_name)
        if progress:
            record_path = Path(progress).parent / "stages" / f"{stage}.json"
            store.write_json(str(record_path), record.model_dump(mode="json", by_alias=True))
            ProgressWriter(Path(progress), stage)(1, 1, unit="stage", message="cached" if record.cached else "done")
        if stage == "ingest" and request.config.retrain.only_new:
            _require_new(request, record.result)
    except Exception as error:
        if progress:
            code = error.exit_code if isinstance(error, SonarcError) else SonarcError.exit_code
            failure = StageFailed(stage=stage, failure=failure_of(error), exit_code=code)
            store.write_json(str(Path(progress).parent / "error.json"), failure.model_dump(mode="json"))
        raise
    return record


def _require_new(request: StageRequest, ingested: StageResult) -> None:
    """End the run here, and say so in MLflow, where ingest found nothing new."""
    from sonarc.tracking.retrain import require_new
    from sonarc.tracking.runs import OUTCOME_TAG, parent_run

    try:
        require_new(request, ingested.outputs["dataset"])
    except NothingNew as found:
        parent_run(request.tracking).log_tags({OUTCOME_TAG: found.code})
        raise


def cleanup(run_name: str, *, ray_address: str = "") -> list[str]:
    """End and remove what Ray jobs of a pipeline run are left: for the exit handler. Safe to repeat.

    Args:
        run_name: as given to `launch`, or found by it.
        ray_address: address of the Ray jobs API, where that is the backend; empty: nothing is left there.

    Returns:
        Names of the jobs that were ended or removed.
    """
    log.setup()
    settings = read_launcher()
    if settings.backend == "ray_jobs" and not ray_address:
        return []
    return _backend(settings, ray_address).cleanup(run_name)


def _backend(settings: LauncherConfig, ray_address: str) -> Backend:
    if settings.backend == "kuberay":
        from components.launch.kuberay import KubeRay

        return KubeRay.connect(settings)
    from components.launch.ray_jobs import RayJobs

    return RayJobs(ray_address)


def _run_name(request: StageRequest, given: str) -> str:
    """Whose run this is: what `cleanup` will be called with."""
    named = [given, *(os.environ.get(name, "") for name in RUN_VARIABLES)]
    if request.tracking is not None:
        named.append(request.tracking.parent_run_id)
    if request.progress:
        named.append(Path(request.progress).parent.name)
    return next(filter(None, named), "")


def _perform(request: StageRequest, ray_address: str, run_name: str) -> StageRecord:
    watch = Stopwatch()
    stage, spec = request.stage, STAGES[request.stage]
    folder = request.folder()
    found = cached_result(folder) if spec.cached else None
    cached = found is not None
    if found is not None:
        result = found
        _record_cached(request, result)
    elif spec.ray:
        backend = _backend(read_launcher(), ray_address)
        result = _run_on_ray(backend, StageJob(request, folder, _run_name(request, run_name)))
    else:
        result = _run_here(request)
    return StageRecord(stage=stage, folder=folder, cached=cached, seconds=watch.seconds, result=result)


def _record_cached(request: StageRequest, result: StageResult) -> None:
    from sonarc.tracking.runs import record_cached

    if request.tracking is not None:
        record_cached(request.tracking, result)


def _work_here(stage: str) -> Work:
    if stage in ("gate", "promote"):
        from sonarc.tracking import stages as tracking_stages

        return {"gate": tracking_stages.run_gate, "promote": tracking_stages.run_promote}[stage]
    from serving import stages as serving_stages

    return {"deploy": serving_stages.run_deploy, "smoke": serving_stages.run_smoke}[stage]


def _run_here(request: StageRequest) -> StageResult:
    """Run a stage that needs no cluster in this very process."""
    from sonarc.tracking.lineage import tracked

    with tracked(request) as run:
        result = execute(request, _work_here(request.stage), run)
        run.log_metrics({**result.metrics, "seconds": result.seconds})
    return result


def _run_on_ray(backend: Backend, job: StageJob) -> StageResult:
    """Run a stage's job and read the result that it leaves."""
    with _sigterm_as_interrupt():
        ended = backend.run(job)
    if ended.succeeded and (result := cached_result(job.folder)) is not None:
        return result
    raise _failure(job, ended)


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """A pod that is told to end stops its job first, as Ctrl-C does. Only a main thread hears signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _failure(job: StageJob, ended: Ended) -> SonarcError:
    """The stage's own error when it left one, else what Ray says and the end of the log."""
    if store.exists(store.join(job.folder, "result.json")):
        error = read_result(job.folder).error
        if error is not None:
            return error_of(error.code, error.message, error.hint)
    return StageError(f"{job.stage} ended without a result ({ended.message}).", f"The end of its log:\n{ended.log}")
