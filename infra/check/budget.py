"""Rules of sizes: what stands all the time, and the largest stage beside it, fits into quota and queue."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from kubernetes.utils import parse_quantity

from components.launch.rayjob import SUBMITTER
from components.launch.settings import Head, LauncherConfig
from infra.check.launcher import launchers
from infra.check.pods import pods
from infra.check.render import Document, name_of
from sonarc.contracts.stages import STAGES

GPU = "nvidia.com/gpu"
_ZERO = {"cpu": Decimal(0), "memory": Decimal(0), GPU: Decimal(0)}


def fits(documents: Sequence[Document]) -> Iterator[str]:
    """The quota holds everything at once; the queue holds each stage."""
    standing = {"requests": dict(_ZERO), "limits": dict(_ZERO)}
    for pod in pods(documents):
        for container in pod.spec["containers"]:
            for bound, total in standing.items():
                _add(total, container.get("resources", {}).get(bound, {}), pod.replicas)
    stages = {
        stage: _stage(settings, stage)
        for _, settings in launchers(documents)
        if settings.backend == "kuberay"
        for stage in STAGES
        if STAGES[stage].ray
    }
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


def _stage(settings: LauncherConfig, stage: str) -> dict[str, Decimal]:
    """Head, workers, and the pod that hands the job in."""
    total = dict(_ZERO)
    _add(total, SUBMITTER, 1)
    _add(total, _named(settings, settings.head_of(stage)), 1)
    for group in settings.workers_of(stage):
        _add(total, _named(settings, group), group.max_workers)
    return total


def _named(settings: LauncherConfig, size: Head) -> dict[str, Any]:
    return {"cpu": size.cpu, "memory": size.memory, settings.gpu_resource: size.gpu}


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
