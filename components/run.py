"""How a pipeline run begins and ends on a cluster, where no `sonarc run` opens its parent run in MLflow and closes it.

Whoever opened it closes it: a run handed over by `sonarc run`, or made by Kubeflow itself (MLFLOW_RUN_ID), stays open.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sonarc.contracts import log, store
from sonarc.contracts.config import SonarcConfig

if TYPE_CHECKING:
    from sonarc.tracking.messages import Status

STATUS: dict[str, Status] = {"SUCCEEDED": "FINISHED", "FAILED": "FAILED"}
"""Kubeflow's words for how a run ended → MLflow's; any other is KILLED."""
MAX_MESSAGE = 5_000
POD_VARIABLE = "KFP_RUN_ID"
"""Set in a run's pods on a cluster (`pipelines.kubeflow.outfit`)."""


def begin_parent(*, config: str, store_uri: str, tracking: str, run: str) -> str:
    """What every stage of the run reports to.

    Args:
        config: the whole config tree as JSON; becomes the run's parameters.
        store_uri: the store's root, where stages leave what the server cannot be told.
        tracking: address of an MLflow server, JSON of a `TrackingRef`, or empty.
        run: id of the pipeline run.

    Returns:
        JSON of a `TrackingRef`, or empty.

    Raises:
        TrackingError: the server cannot be reached or refuses.
    """
    log.setup()
    if not _names_a_server(tracking):
        return tracking
    from sonarc.tracking.runs import EXPERIMENT, PIPELINE_RUN_TAG, find_parent, open_parent

    outbox = _outbox(store_uri)
    ref = find_parent(tracking, EXPERIMENT, run, outbox)  # opened by an earlier try of this component
    if ref is None:
        tree = SonarcConfig.model_validate_json(config)
        tags = {"sonarc.preset": tree.preset, "sonarc.config_sha256": tree.sha256(), PIPELINE_RUN_TAG: run}
        ref = open_parent(tracking, EXPERIMENT, run, tree.model_dump(mode="json"), tags, outbox)
    return ref.model_dump_json()


def end_run(*, store_uri: str, tracking: str, ray_address: str, run: str, state: str, message: str) -> None:
    """End what a run left behind, and close the parent run if `begin_parent` opened it. Safe to repeat.

    Args:
        store_uri, tracking, run: as for `begin_parent`.
        ray_address: address of the Ray jobs API.
        state: SUCCEEDED, FAILED or CANCELLED.
        message: Kubeflow's word on a failure.
    """
    log.setup()
    print(f"The stages of run {run}: {state}. {message}".rstrip())
    try:
        if os.environ.get(POD_VARIABLE):  # in kfp's local runner Ray ends with the run
            from components.launch import cleanup

            cleanup(run, ray_address=ray_address)
    finally:
        _close_parent(store_uri, tracking, run, state, message)


def _close_parent(store_uri: str, tracking: str, run: str, state: str, message: str) -> None:
    if not _names_a_server(tracking):
        return
    from sonarc.tracking.runs import EXPERIMENT, OUTCOME_TAG, close_parent, find_parent, parent_run, stages_of

    ref = find_parent(tracking, EXPERIMENT, run, _outbox(store_uri))
    if ref is None:
        return  # never begun, or Kubeflow's own, which ends with the Kubeflow run
    if state != "SUCCEEDED":
        parent_run(ref).log_tags({OUTCOME_TAG: "failed", "sonarc.message": message[:MAX_MESSAGE]})
    elif "encode" in (stages := stages_of(ref)):  # else it ended early, and ingest has said so
        parent_run(ref).log_tags({OUTCOME_TAG: "refused" if stages & {"gate", "promote"} == {"gate"} else "succeeded"})
    close_parent(ref, STATUS.get(state, "KILLED"))


def _outbox(store_uri: str) -> str:
    from sonarc.tracking.outbox import OUTBOX

    return store.join(store_uri, OUTBOX)


def _names_a_server(tracking: str) -> bool:
    return bool(tracking) and not tracking.lstrip().startswith("{")
