"""What every component does: look in the stage cache, else run the stage, as a Ray job or right here.

Runs inside a component's process, under kfp's local runner and in a pod alike.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import sys
import time
import uuid
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from sonarc.contracts import log, store
from sonarc.contracts.config import SonarcConfig
from sonarc.contracts.errors import NothingNew, SonarcError, StageError, error_of
from sonarc.contracts.hashing import sha256_bytes, sha256_json
from sonarc.contracts.progress import ProgressWriter
from sonarc.contracts.result import (
    StageFailure,
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

POLL_SECONDS = (0.2, 2.0)
"""Between two looks at a Ray job: at first, and at most. Each look costs Ray's dashboard some 0.1 s of a CPU."""
LOG_TAIL_LINES = 30


class StageRecord(BaseModel):
    """How a stage went in one pipeline run: kept beside the run's progress as `stages/<stage>.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stage: str
    folder: str
    """URI of the stage's folder in the store."""
    cached: bool
    seconds: float
    """Wall time in this run, start-up included; a cached stage takes next to none."""
    result: StageResult


class StageFailed(BaseModel):
    """`error.json` beside the run's progress: which stage failed, and why."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stage: str
    failure: StageFailure
    exit_code: int


def launch(
    stage: str,
    *,
    config: str,
    store_uri: str,
    tracking: str,
    ray_address: str,
    progress: str,
    inputs: dict[str, str],
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
        request = _with_outside(request)
        record = _perform(request, ray_address)
        if progress:
            record_path = Path(progress).parent / "stages" / f"{stage}.json"
            store.write_json(str(record_path), record.model_dump(mode="json", by_alias=True))
            ProgressWriter(Path(progress), stage)(1, 1, unit="stage", message="cached" if record.cached else "done")
        if stage == "ingest" and request.config.retrain.only_new:
            _require_new(request, record.result)
    except SonarcError as error:
        if progress:
            failure = StageFailed(stage=stage, failure=failure_of(error), exit_code=error.exit_code)
            store.write_json(str(Path(progress).parent / "error.json"), failure.model_dump(mode="json"))
        raise
    return record


def _perform(request: StageRequest, ray_address: str) -> StageRecord:
    watch = Stopwatch()
    stage, spec = request.stage, STAGES[request.stage]
    folder = request.folder()
    found = cached_result(folder) if spec.cached else None
    cached = found is not None
    if found is not None:
        result = found
        _record_cached(request, result)
    elif spec.ray:
        result = _run_on_ray(request, folder, ray_address)
    else:
        result = _run_here(request)
    return StageRecord(stage=stage, folder=folder, cached=cached, seconds=watch.seconds, result=result)


def _with_outside(request: StageRequest) -> StageRequest:
    """Let what lies outside the store enter the key: it may have changed since the last run under the same name."""
    config, outside, champion, parent, base = request.config, [], "", "", ""
    if request.stage == "sources" and config.data.sources:
        from sonarc.data.sources import fingerprint

        outside.append(fingerprint(config.data.sources))
    if request.stage in ("encode", "tune", "evaluate"):  # a decoder of one's own may change while latents stay
        outside += _weights(config.codec.uri)
    if request.stage in ("tune", "evaluate"):
        outside += _weights(config.evaluate.clap)
    if request.stage == "evaluate":
        champion, sha256 = _champion(request)
        outside += [sha256] if champion else []
    if request.stage == "ingest":
        parent, sha256 = _parent(request)
        outside += [sha256] if parent else []
    if request.stage == "pretrain" and config.retrain.warm_start != "off":
        base, sha256 = _base(request)
        outside += [sha256] if base else []
    combined = sha256_json(outside) if outside else ""
    return request.model_copy(update={"fingerprint": combined, "champion": champion, "parent": parent, "base": base})


def _base(request: StageRequest) -> tuple[str, str]:
    """URI and hash of the package of the base that pre-training begins with; empty: from scratch."""
    from sonarc.tracking.retrain import base_to_start_from

    return base_to_start_from(request)


def _require_new(request: StageRequest, ingested: StageResult) -> None:
    """End the run here, and say so in MLflow, where ingest found nothing new."""
    from sonarc.tracking.retrain import require_new
    from sonarc.tracking.runs import OUTCOME_TAG, parent_run

    try:
        require_new(request, ingested.outputs["dataset"])
    except NothingNew as found:
        parent_run(request.tracking).log_tags({OUTCOME_TAG: found.code})
        raise


def _parent(request: StageRequest) -> tuple[str, str]:
    """URI and hash of the dataset that is to grow; empty for the first with these settings."""
    from sonarc.contracts.dataset import lineage_sha256, read_dataset
    from sonarc.data.growth import Latest, places

    latest = Latest.read(places(request.store, lineage_sha256(request.config.audio, request.config.data))[0])
    if latest is None:
        return "", ""
    parent = latest.parent_of(request.input_results()["sources"].outputs["sources"].sha256)
    return (parent, read_dataset(parent).sha256()) if parent else ("", "")


def _weights(location: str) -> list[str]:
    """Hashes of the files of a user's own weights folder; none for a name shipped with Sonarc or a hub id."""
    if "://" not in location and not Path(location).is_dir():
        return []
    return [sha256_bytes(store.read_bytes(store.join(location, name))) for name in store.list_files(location)]


def _champion(request: StageRequest) -> tuple[str, str]:
    """URI and hash of the champion's package, to be scored beside the candidate; empty if the two are one."""
    if request.tracking is None:
        return "", ""
    from sonarc.contracts.package import read_package
    from sonarc.tracking.registry import Registry

    settings = request.config.registry
    champion = Registry(request.tracking.uri, request.store).resolve(settings.model, settings.alias)
    if champion is None:
        return "", ""
    candidate = request.input_results()["posttrain"].outputs["generator"].sha256
    if read_package(champion.package_uri).lineage.generator_sha256 == candidate:
        return "", ""
    return champion.package_uri, champion.package_sha256


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


def _run_on_ray(request: StageRequest, folder: str, address: str) -> StageResult:
    """Submit the stage as a Ray job, follow its log, and read the result it leaves."""
    from ray.job_submission import JobStatus, JobSubmissionClient

    from ray_jobs.job import worker_env

    attempt = f"{request.stage}-{uuid.uuid4().hex[:12]}"
    request_uri = store.join(request.store, "requests", f"{attempt}.json")
    store.write_json(request_uri, request.model_dump(mode="json"))
    # What an earlier attempt left must not be taken for this one's.
    store.remove_file(store.join(folder, "result.json"))
    client = JobSubmissionClient(address)
    client.submit_job(
        # Ray takes the entrypoint as one string; every part is ours and quoted.
        entrypoint=shlex.join([sys.executable, "-m", f"ray_jobs.{request.stage}", "--request", request_uri]),
        submission_id=attempt,
        runtime_env={"env_vars": worker_env(request.config.compute.threads)},
        metadata={"sonarc_run": os.environ.get("KFP_RUN_ID", "")},
    )
    try:
        shown, pause = 0, POLL_SECONDS[0]
        while True:
            status = client.get_job_status(attempt)
            text = client.get_job_logs(attempt)
            sys.stdout.write(text[shown:])
            sys.stdout.flush()
            shown = len(text)
            if status.is_terminal():
                break
            time.sleep(pause)
            pause = min(1.1 * pause, POLL_SECONDS[1])
    except BaseException:
        with contextlib.suppress(Exception):
            client.stop_job(attempt)
        raise
    if status == JobStatus.SUCCEEDED and (result := cached_result(folder)) is not None:
        return result
    raise _failure(request.stage, folder, client.get_job_info(attempt).message, text)


def _failure(stage: str, folder: str, message: str | None, log_text: str) -> SonarcError:
    """The stage's own error when it left one, else what Ray says and the end of the log."""
    if store.exists(store.join(folder, "result.json")):
        error = read_result(folder).error
        if error is not None:
            return error_of(error.code, error.message, error.hint)
    tail = "\n".join(log_text.splitlines()[-LOG_TAIL_LINES:])
    return StageError(f"{stage} ended without a result ({message}).", f"The end of its log:\n{tail}")


def artifact_metadata(record: StageRecord) -> dict[str, str]:
    """What a component writes on its output artifact, as strings: kfp turns numbers into floats."""
    return {
        "stage": record.stage,
        "key": record.result.key,
        "cached": json.dumps(record.cached),
        "seconds": f"{record.seconds:.3f}",
    }


def cleanup(run_name: str, *, ray_address: str = "") -> list[str]:
    """End the Ray jobs of a pipeline run that are left, and name them; safe to repeat.

    A component that is ended stops its own job. What this finds was left by one that was killed.
    """
    from ray.job_submission import JobSubmissionClient

    client, ended = JobSubmissionClient(ray_address), []
    for job in client.list_jobs():
        ours = job.submission_id and (job.metadata or {}).get("sonarc_run") == run_name
        if ours and not job.status.is_terminal():
            client.stop_job(job.submission_id)
            ended.append(job.submission_id)
    return ended
