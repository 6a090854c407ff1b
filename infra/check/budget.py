"""Rules of sizes: what stands all the time, and the largest stage beside it, fits into quota and queue."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

import yaml
from kubernetes.utils import parse_quantity

from infra.check.pods import pods
from infra.check.render import Document, name_of

GPU = "nvidia.com/gpu"
_ZERO = {"cpu": Decimal(0), "memory": Decimal(0), GPU: Decimal(0)}


def fits(documents: Sequence[Document]) -> Iterator[str]:
    """The quota holds everything at once; the queue holds each stage."""
    standing = {"requests": dict(_ZERO), "limits": dict(_ZERO)}
    for pod in pods(documents):
        for container in pod.spec["containers"]:
            for bound, total in standing.items():
                _add(total, container.get("resources", {}).get(bound, {}), pod.replicas)
    launchers = [doc for doc in documents if doc["kind"] == "ConfigMap" and "launcher.yaml" in doc.get("data", {})]
    stages = {}
    for launcher in launchers:
        settings = yaml.safe_load(launcher["data"]["launcher.yaml"])
        if settings["backend"] == "kuberay":
            own = settings.get("stages", {})
            stages = {stage: _stage(settings, own.get(stage, {})) for stage in [*own, "any other"]}
    for document in documents:
        if document["kind"] == "ResourceQuota":
            yield from _within_quota(document, standing, stages)
        if document["kind"] == "ClusterQueue":
            for stage, sizes in stages.items():
                quotas = _queue(document)
                for resource, wanted in sizes.items():
                    if wanted > quotas[resource]:
                        yield f"{name_of(document)}: never admits {stage}, which asks for {wanted} of {resource}"


def _within_quota(quota: Document, standing: Mapping[str, Any], stages: Mapping[str, Any]) -> Iterator[str]:
    for bound, total in standing.items():
        for resource in _ZERO:
            allowed = quota["spec"]["hard"].get(f"{bound}.{resource}")
            wanted = total[resource] + max((sizes[resource] for sizes in stages.values()), default=Decimal(0))
            if allowed is not None and wanted > parse_quantity(allowed):
                yield f"{name_of(quota)}: {wanted} of {bound}.{resource} is wanted, {allowed} allowed"


def _stage(settings: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Decimal]:
    total = dict(_ZERO)
    _add(total, _named(own.get("head", settings["head"])), 1)
    for group in own.get("workers", settings["workers"]):
        _add(total, _named(group), group["max_workers"])
    return total


def _named(size: Mapping[str, Any]) -> dict[str, Any]:
    return {"cpu": size["cpu"], "memory": size["memory"], GPU: size.get("gpu", 0)}


def _queue(document: Document) -> dict[str, Decimal]:
    """The most of each resource that one pod set after another can get: flavors are summed."""
    total = dict(_ZERO)
    for group in document["spec"]["resourceGroups"]:
        for flavor in group["flavors"]:
            _add(total, {resource["name"]: resource["nominalQuota"] for resource in flavor["resources"]}, 1)
    return total


def _add(total: dict[str, Decimal], sizes: Mapping[str, Any], times: int) -> None:
    for resource in _ZERO:
        total[resource] += parse_quantity(sizes.get(resource, 0)) * times
