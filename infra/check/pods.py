"""The pods that objects will make, whichever kind of object makes them, and what selects them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from infra.check.render import Document, name_of

_MADE_LATER = {"workflows.argoproj.io/workflow", "batch.kubernetes.io/job-name", "ray.io/node-type"}

LASTING = ("Deployment", "StatefulSet", "RayCluster", "RayService")
"""Kinds whose pods are to stay."""


@dataclass(frozen=True)
class Pod:
    """A kind of pod.

    Attributes:
        owner: `Kind/name` of what makes it, and which of its pods.
        kind: what makes it.
        labels: its own, and those that KubeRay or the Job controller put on.
        replicas: how many of it.
    """

    owner: str
    kind: str
    labels: Mapping[str, str]
    spec: Mapping[str, Any]
    replicas: int = 1

    @property
    def containers(self) -> Sequence[Mapping[str, Any]]:
        """All of them, the first ones to run included."""
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]

    @property
    def ports(self) -> dict[int, str]:
        """Port → name."""
        listed = [port for container in self.containers for port in container.get("ports", [])]
        return {port["containerPort"]: port.get("name", "") for port in listed}

    def has_port(self, port: int | str) -> bool:
        """Whether it declares a port, given by number or name."""
        return port in self.ports or port in self.ports.values()


def pods(documents: Sequence[Document]) -> list[Pod]:
    """The pods of all objects."""
    return [pod for document in documents for pod in _pods(document)]


def _pods(document: Document) -> Iterator[Pod]:
    kind, name, spec = document["kind"], name_of(document), document.get("spec", {})
    if kind == "Pod":
        yield _pod(name, kind, document, {})
    elif kind in ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet"):
        yield _pod(name, kind, spec["template"], {}, spec.get("replicas", 1))
    elif kind == "Job":
        yield _pod(name, kind, spec["template"], {"batch.kubernetes.io/job-name": document["metadata"]["name"]})
    elif kind == "CronJob":
        labels = {"batch.kubernetes.io/job-name": document["metadata"]["name"]}
        yield _pod(name, kind, spec["jobTemplate"]["spec"]["template"], labels)
    elif kind in ("RayCluster", "RayService", "RayJob"):
        cluster = spec if kind == "RayCluster" else spec.get("rayClusterConfig") or spec["rayClusterSpec"]
        yield _pod(f"{name} head", kind, cluster["headGroupSpec"]["template"], _ray("head"))
        for group in cluster.get("workerGroupSpecs", []):
            what = f"{name} {group['groupName']}"
            yield _pod(what, kind, group["template"], _ray("worker"), group.get("replicas", 1))


def _ray(node: str) -> dict[str, str]:
    return {"ray.io/is-ray-node": "yes", "ray.io/node-type": node}


def _pod(owner: str, kind: str, template: Document, added: Mapping[str, str], replicas: int = 1) -> Pod:
    labels = {**template.get("metadata", {}).get("labels", {}), **added}
    return Pod(owner, kind, labels, template["spec"], replicas)


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a label selector, as Kubernetes reads it, selects what has these labels."""
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    return all(_holds(expression, labels) for expression in selector.get("matchExpressions", []))


def _holds(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    key, values = expression["key"], expression.get("values", [])
    match expression["operator"]:
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
    raise ValueError(f"no such operator: {expression['operator']}")


def of_others(selector: Mapping[str, Any]) -> bool:
    """Whether a selector asks for labels that pods made at run time have: a RayJob's, its submitter's, Argo's."""
    wanted = {expression["key"] for expression in selector.get("matchExpressions", [])}
    return bool(wanted & _MADE_LATER)
