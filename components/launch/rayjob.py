"""The RayJob of a stage, as KubeRay takes it: a cluster of its own that ends with it, unprivileged, without secrets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from components.launch.attempt import Attempt
from components.launch.settings import Head, LauncherConfig, Volume, Workers

API = "ray.io/v1"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
TMP = "/tmp"
SUBMITTER = {"cpu": "500m", "memory": "512Mi"}
AUTOSCALER = {"cpu": "500m", "memory": "512Mi"}


def rayjob(
    settings: LauncherConfig,
    attempt: Attempt,
    entrypoint: str,
    variables: Mapping[str, str],
    *,
    owned: bool,
) -> dict[str, Any]:
    """The object to create.

    KubeRay itself never retries it (`backoffLimit` 0): its retries may overlap, and Kubeflow's are told apart by name.

    Args:
        entrypoint: what the Ray job runs.
        variables: environment of the Ray job's processes.
        owned: whether it goes when the attempt's pod is deleted; possible only in the pod's own namespace.
    """
    labels = attempt.labels | ({QUEUE_LABEL: settings.queue} if settings.queue else {})
    metadata: dict[str, Any] = {"name": attempt.name, "labels": labels, "annotations": attempt.annotations}
    if owned and attempt.pod is not None:
        name, uid = attempt.pod
        metadata["ownerReferences"] = [{"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid}]
    spec = {
        "entrypoint": entrypoint,
        "runtimeEnvYAML": yaml.safe_dump({"env_vars": dict(variables)}),
        "submissionMode": "K8sJobMode",
        "submitterPodTemplate": {"spec": _submitter(settings)},
        "backoffLimit": 0,
        "suspend": settings.queue is not None,
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": settings.ttl_seconds,
        "activeDeadlineSeconds": settings.deadline_of(attempt.stage),
        "preRunningDeadlineSeconds": settings.start_seconds,
        "rayClusterSpec": _cluster(settings, attempt),
    }
    return {"apiVersion": API, "kind": "RayJob", "metadata": metadata, "spec": spec}


def _cluster(settings: LauncherConfig, attempt: Attempt) -> dict[str, Any]:
    groups = settings.workers_of(attempt.stage)
    grows = any(group.min_workers != group.max_workers for group in groups)
    head = _pod(settings, attempt, settings.head_of(attempt.stage), "ray-head")
    if grows:
        head["spec"]["automountServiceAccountToken"] = True  # the autoscaler asks for pods
    cluster: dict[str, Any] = {
        "rayVersion": settings.ray_version,
        "headGroupSpec": {"rayStartParams": {"dashboard-host": "0.0.0.0"}, "template": head},
        "workerGroupSpecs": [_group(settings, attempt, group) for group in groups],
    }
    if settings.token_auth:
        cluster["authOptions"] = {"mode": "token"}
    if grows:
        cluster["enableInTreeAutoscaling"] = True
        cluster["autoscalerOptions"] = {
            "securityContext": _unprivileged(),
            "resources": {"requests": AUTOSCALER, "limits": AUTOSCALER},
        }
    return cluster


def _group(settings: LauncherConfig, attempt: Attempt, group: Workers) -> dict[str, Any]:
    return {
        "groupName": group.name,
        "replicas": group.min_workers,
        "minReplicas": group.min_workers,
        "maxReplicas": group.max_workers,
        "rayStartParams": {},
        "template": _pod(settings, attempt, group, "ray-worker"),
    }


def _pod(settings: LauncherConfig, attempt: Attempt, size: Head, container: str) -> dict[str, Any]:
    amounts = {"cpu": size.cpu, "memory": size.memory} | ({settings.gpu_resource: str(size.gpu)} if size.gpu else {})
    spec = _pod_spec(settings)
    spec["volumes"] = [_scratch(settings), *(_volume(volume) for volume in settings.volumes)]
    spec["containers"] = [
        {
            "name": container,
            "image": settings.image,
            "resources": {"requests": amounts, "limits": amounts},
            "securityContext": _unprivileged(),
            "env": _environment(settings),
            "envFrom": [{"secretRef": {"name": name}} for name in settings.secrets],
            "volumeMounts": [
                {"name": "tmp", "mountPath": TMP},
                *(
                    {"name": volume.name, "mountPath": volume.mount_path, "readOnly": volume.read_only}
                    for volume in settings.volumes
                ),
            ],
        }
    ]
    if size.node_selector:
        spec["nodeSelector"] = size.node_selector
    if size.tolerations:
        spec["tolerations"] = [
            {name: value for name, value in toleration.model_dump().items() if value} for toleration in size.tolerations
        ]
    return {"metadata": {"labels": attempt.labels}, "spec": spec}


def _submitter(settings: LauncherConfig) -> dict[str, Any]:
    """The pod that hands the job in and prints its log; it needs none of the job's secrets."""
    spec = _pod_spec(settings)
    spec["restartPolicy"] = "Never"
    spec["volumes"] = [{"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}}]
    spec["containers"] = [
        {
            "name": "ray-job-submitter",
            "image": settings.image,
            "resources": {"requests": SUBMITTER, "limits": SUBMITTER},
            "securityContext": _unprivileged(),
            "env": [{"name": "HOME", "value": TMP}],
            "volumeMounts": [{"name": "tmp", "mountPath": TMP}],
        }
    ]
    return spec


def _pod_spec(settings: LauncherConfig) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": settings.user,
            "runAsGroup": settings.group,
            "fsGroup": settings.group,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    if settings.service_account:
        spec["serviceAccountName"] = settings.service_account
    if settings.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in settings.image_pull_secrets]
    return spec


def _unprivileged() -> dict[str, Any]:
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "capabilities": {"drop": ["ALL"]},
    }


def _environment(settings: LauncherConfig) -> Sequence[dict[str, Any]]:
    plain = {"HOME": TMP} | settings.env
    return [
        *({"name": name, "value": value} for name, value in plain.items()),
        *(
            {"name": name, "valueFrom": {"secretKeyRef": {"name": key.secret, "key": key.key}}}
            for name, key in settings.secret_env.items()
        ),
    ]


def _scratch(settings: LauncherConfig) -> dict[str, Any]:
    return {"name": "tmp", "emptyDir": {"sizeLimit": settings.scratch}}


def _volume(volume: Volume) -> dict[str, Any]:
    if volume.claim is not None:
        source: dict[str, Any] = {"persistentVolumeClaim": {"claimName": volume.claim, "readOnly": volume.read_only}}
    elif volume.secret is not None:
        source = {"secret": {"secretName": volume.secret}}
    elif volume.config_map is not None:
        source = {"configMap": {"name": volume.config_map}}
    else:
        source = {"emptyDir": {"sizeLimit": volume.empty_dir}}
    return {"name": volume.name, **source}
