"""What keeps a cluster from starting, though KubeRay goes on trying: images that do not come, pods that are refused."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from typing import Any

from components.launch.kube import Kube, UnreachableError
from sonarc.contracts.errors import StageError

WAITING = (
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "CreateContainerConfigError",
    "CreateContainerError",
)
"""Reasons for which a container waits that do not pass by themselves, unless a registry or a Secret comes back."""

logger = logging.getLogger(__name__)


class Obstacles:
    """Looks at a RayJob's pods while its cluster starts, and gives up when one thing has stood in the way too long."""

    def __init__(self, kube: Kube, rayjob: str, patience: float) -> None:
        self._kube, self._rayjob, self._patience = kube, rayjob, patience
        self._since: dict[str, float] = {}
        self._may_look = True

    def check(self, status: Mapping[str, Any]) -> None:
        """Look once.

        Raises:
            StageError: an image could not be pulled, or a pod not be made, for longer than the patience.
        """
        now = time.monotonic()
        found = dict([*self._refused(status), *self._waiting(status)])
        self._since = {what: self._since.get(what, now) for what in found}
        for what, look in found.items():
            if now - self._since[what] >= self._patience:
                raise StageError(f"The cluster of the RayJob {self._rayjob} does not start: {what}", look)

    def _refused(self, status: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        namespace = self._kube.namespace
        for condition in status.get("rayClusterStatus", {}).get("conditions", []):
            if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
                yield (
                    f"a pod is refused ({condition['reason']}): {condition['message']}",
                    f"Look: kubectl -n {namespace} describe resourcequota,limitrange; "
                    f"kubectl -n {namespace} describe raycluster {status.get('rayClusterName', '')}".rstrip(),
                )

    def _waiting(self, status: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        for pod in self._pods(status.get("rayClusterName", "")):
            statuses = pod.get("status", {})
            containers = [*statuses.get("initContainerStatuses", []), *statuses.get("containerStatuses", [])]
            for container in containers:
                waiting = container.get("state", {}).get("waiting", {})
                if waiting.get("reason") in WAITING:
                    # One reason alternates between two names as the kubelet tries and pauses: the image names it.
                    image = "an image cannot be pulled" if "Image" in waiting["reason"] else waiting["reason"]
                    yield (
                        f"{image} ({container['image']} in {pod['metadata']['name']})",
                        f"{waiting.get('message', '')} Look: kubectl -n {self._kube.namespace} get events "
                        f"--field-selector involvedObject.name={pod['metadata']['name']}".strip(),
                    )

    def _pods(self, cluster: str) -> list[dict[str, Any]]:
        if not (cluster and self._may_look):
            return []
        try:
            return self._kube.pods({"ray.io/cluster": cluster})
        except UnreachableError:
            return []
        except StageError as error:
            logger.warning("The cluster's pods cannot be looked at: %s", error)
            self._may_look = False
            return []
