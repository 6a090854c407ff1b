"""What the phases of a RayJob mean.

KubeRay reports two: of the deployment (`jobDeploymentStatus`) and of the Ray job in it (`jobStatus`). A stage has
succeeded only when the first is Complete and the second SUCCEEDED.
"""

from __future__ import annotations

from components.launch.attempt import RUN
from components.launch.kube import RayJobObject
from components.launch.rayjob import QUEUE_LABEL
from sonarc.contracts.errors import StageError


class EndedError(StageError):
    """The cluster has ended the RayJob: it stays, to be looked at, until its time is up or the run is cleaned up."""


def has_ended(state: RayJobObject) -> bool:
    """Whether nothing more will come."""
    return _phase(state) in ("Complete", "Failed", "ValidationFailed")


def how_it_ended(state: RayJobObject) -> tuple[bool, str]:
    """Whether the job succeeded, and what Ray says of it.

    Raises:
        EndedError: the cluster, not the job, is to blame.
    """
    status, name, namespace = state["status"], state["metadata"]["name"], state["metadata"]["namespace"]
    phase, outcome, reason = _phase(state), status.get("jobStatus", ""), status.get("reason", "")
    message = str(status.get("message", ""))
    if phase == "Complete" or (phase == "Failed" and reason == "AppFailed"):
        return (phase, outcome) == ("Complete", "SUCCEEDED"), f"{outcome or phase}: {message}".removesuffix(": ")
    look = f"Look: kubectl -n {namespace} describe rayjob {name}"
    if phase == "ValidationFailed":
        raise EndedError(f"KubeRay refuses the RayJob {name}: {message}", look)
    if reason == "DeadlineExceeded":
        raise EndedError(
            f"The RayJob {name} was ended after its {state['spec']['activeDeadlineSeconds']} s.",
            f"Raise the stage's deadline_seconds in the launcher's settings. {look}",
        )
    if reason == "PreRunningDeadlineExceeded":
        raise EndedError(
            f"The cluster of the RayJob {name} was not up within {state['spec']['preRunningDeadlineSeconds']} s.",
            f"Is there room for it? {look}; kubectl -n {namespace} get pods "
            f"-l {RUN}={state['metadata']['labels'][RUN]}; kubectl -n {namespace} get events",
        )
    raise EndedError(f"The RayJob {name} failed ({reason or 'no reason given'}): {message}", look)


def is_starting(state: RayJobObject) -> bool:
    """Whether its cluster is on the way up."""
    return _phase(state) in ("", "Initializing") and not _waits(state)


def in_words(state: RayJobObject) -> str:
    """What a running job does, for people."""
    if _waits(state):
        queue = state["metadata"].get("labels", {}).get(QUEUE_LABEL)
        return f"waits in the queue {queue}" if queue else "is suspended"
    cluster = state.get("status", {}).get("rayClusterName", "its cluster")
    return {
        "": "waits for KubeRay",
        "Initializing": "its cluster starts",
        "Running": f"runs on {cluster}",
    }.get(_phase(state), _phase(state))


def _waits(state: RayJobObject) -> bool:
    phase = _phase(state)
    to_be = phase in ("", "Initializing") and bool(state["spec"].get("suspend"))
    return to_be or phase in ("Suspending", "Suspended")


def _phase(state: RayJobObject) -> str:
    return str(state.get("status", {}).get("jobDeploymentStatus", ""))
