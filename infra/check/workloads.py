"""Rules of pods: what they run as, what they may take, how they end. Each yields a sentence for each breach."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from infra.check.pods import LASTING, Pod, pods, selects
from infra.check.render import Document, name_of

_EXACT = re.compile(r"(@sha256:[0-9a-f]{64}|:v?\d+(\.\d+)+([.-][\w.-]+)?)$")
_SECRET_NAME = re.compile(r"PASSWORD|PASSWD|SECRET|TOKEN|CREDENTIAL|ACCESS_KEY|AUTH_KEY|API_KEY|PRIVATE_KEY", re.I)
_SECRET_TEXT = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY|://[^/@\s$:]+:[^/@\s$]+@|\bAKIA[0-9A-Z]{16}\b|"
    r"(?im:^\s*\S*(password|secret_key|api_key|token)\s*[=:]\s*['\"]?[^\s'\"{$][^\s]{5,})"
)
_REFERENCE = re.compile(r"\$\((\w+)\)")
DRAIN = 60
"""Longest request of the endpoint, and longest time in which Ray empties a node, seconds."""


def exact_images(documents: Sequence[Document]) -> Iterator[str]:
    """An image is named by digest or by a version, never by a tag that moves."""
    for pod, container in _containers(documents):
        if not _EXACT.search(container["image"]):
            yield f"{pod.owner}: the image {container['image']} is not exact"


def nobody_is_root(documents: Sequence[Document]) -> Iterator[str]:
    """Every container runs as a named user other than root, and shares nothing with its node."""
    for pod, container in _containers(documents):
        what = f"{pod.owner} {container['name']}"
        context = {**pod.spec.get("securityContext", {}), **container.get("securityContext", {})}
        if context.get("runAsNonRoot") is not True or not context.get("runAsUser"):
            yield f"{what}: may run as root"
        if context.get("privileged"):
            yield f"{what}: is privileged"
    for pod in pods(documents):
        for shared in ("hostNetwork", "hostPID", "hostIPC"):
            if pod.spec.get(shared):
                yield f"{pod.owner}: {shared}"
        if any("hostPath" in volume for volume in pod.spec.get("volumes", [])):
            yield f"{pod.owner}: mounts a folder of its node"


def confined_containers(documents: Sequence[Document]) -> Iterator[str]:
    """A read-only root, no capabilities, no way to more rights, the runtime's seccomp profile."""
    for pod, container in _containers(documents):
        what, own = f"{pod.owner} {container['name']}", container.get("securityContext", {})
        context = {**pod.spec.get("securityContext", {}), **own}
        if own.get("readOnlyRootFilesystem") is not True:
            yield f"{what}: its root can be written"
        if own.get("allowPrivilegeEscalation") is not False:
            yield f"{what}: may gain rights"
        capabilities = own.get("capabilities", {})
        if capabilities.get("drop") != ["ALL"] or capabilities.get("add"):
            yield f"{what}: keeps capabilities"
        if context.get("seccompProfile") != {"type": "RuntimeDefault"}:
            yield f"{what}: has no seccomp profile"


def bounded_resources(documents: Sequence[Document]) -> Iterator[str]:
    """Requests and limits of CPU and memory everywhere, and a size for every folder that is not kept."""
    for pod, container in _containers(documents):
        for bound in ("requests", "limits"):
            missing = {"cpu", "memory"} - set(container.get("resources", {}).get(bound, {}))
            if missing:
                yield f"{pod.owner} {container['name']}: no {bound} of {', '.join(sorted(missing))}"
    for pod in pods(documents):
        for volume in pod.spec.get("volumes", []):
            if "emptyDir" in volume and "sizeLimit" not in volume["emptyDir"]:
                yield f"{pod.owner}: the folder {volume['name']} has no limit"


def no_plain_secrets(documents: Sequence[Document]) -> Iterator[str]:
    """A secret is a reference: never an object, an environment's value, a setting's text or an argument."""
    for document in documents:
        name = name_of(document)
        if document["kind"] == "Secret" and (document.get("data") or document.get("stringData")):
            yield f"{name}: holds its secret in plain text"
        for path, text in _texts(document):
            if _SECRET_TEXT.search(text):
                yield f"{name}: {path} looks like a secret"
    for pod, container in _containers(documents):
        secret = set()
        for variable in container.get("env", []):
            value = variable.get("value", "")
            if "secretKeyRef" in variable.get("valueFrom", {}):
                secret.add(variable["name"])
            elif _SECRET_NAME.search(variable["name"]) and _REFERENCE.sub("", value).strip(",:\"'"):
                yield f"{pod.owner} {container['name']}: {variable['name']} is in plain text"
        for text in [*container.get("command", []), *container.get("args", [])]:
            if secret & set(_REFERENCE.findall(text)):
                yield f"{pod.owner} {container['name']}: a secret is an argument, which every process can read"


def tokens_where_needed(documents: Sequence[Document]) -> Iterator[str]:
    """Only who has rights at Kubernetes' API gets a token for it."""
    bound = {
        subject["name"]
        for document in documents
        if document["kind"] in ("RoleBinding", "ClusterRoleBinding")
        for subject in document["subjects"]
    }
    for document in documents:
        unbound = document["kind"] == "ServiceAccount" and document["metadata"]["name"] not in bound
        if unbound and document.get("automountServiceAccountToken") is not False:
            yield f"{name_of(document)}: has no rights, and yet a token"
    for pod in pods(documents):
        token = pod.spec.get("automountServiceAccountToken") is not False
        if token and pod.spec.get("serviceAccountName") not in bound:
            yield f"{pod.owner}: has no rights, and yet a token"


def lasting_pods(documents: Sequence[Document]) -> Iterator[str]:
    """What is to stay is watched, ends in order, has a rank, and is not all on one node."""
    for pod in pods(documents):
        if pod.kind not in LASTING:
            continue
        for container in pod.spec["containers"]:
            for probe in ("readinessProbe", "livenessProbe"):
                if probe not in container:
                    yield f"{pod.owner} {container['name']}: no {probe}"
        least = DRAIN + 1 if "Ray" in pod.kind else 1
        if pod.spec.get("terminationGracePeriodSeconds", 0) < least:
            yield f"{pod.owner}: is not given {least} s to end"
        if "priorityClassName" not in pod.spec:
            yield f"{pod.owner}: has no priority class"
        spread = pod.spec.get("topologySpreadConstraints", [])
        if pod.replicas > 1 and not any(selects(rule["labelSelector"], pod.labels) for rule in spread):
            yield f"{pod.owner}: all {pod.replicas} may be on one node"


def budgets(documents: Sequence[Document]) -> Iterator[str]:
    """Whatever serves with several replicas keeps some of them while nodes are drained; one alone can be moved."""
    selectors = [doc["spec"]["selector"] for doc in documents if doc["kind"] == "PodDisruptionBudget"]
    for pod in pods(documents):
        serves = pod.kind in ("Deployment", "StatefulSet", "RayService") and pod.replicas > 1
        if serves and not any(selects(selector, pod.labels) for selector in selectors):
            yield f"{pod.owner}: {pod.replicas} replicas, and no PodDisruptionBudget"
    for document in documents:
        if document["kind"] != "PodDisruptionBudget":
            continue
        name, kept = name_of(document), document["spec"]
        chosen = [pod for pod in pods(documents) if selects(kept["selector"], pod.labels)]
        least = kept.get("minAvailable", 0)
        if not chosen:
            yield f"{name}: selects nothing"
        elif kept.get("maxUnavailable") == 0 or (
            isinstance(least, int) and least >= sum(pod.replicas for pod in chosen)
        ):
            yield f"{name}: no pod of it may ever be moved, and no node drained"


def _count(chosen: Sequence[Pod]) -> int:
    return sum(pod.replicas for pod in chosen)


def _containers(documents: Sequence[Document]) -> Iterator[tuple[Pod, Mapping[str, Any]]]:
    for pod in pods(documents):
        for container in pod.containers:
            yield pod, container


def _texts(tree: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(tree, str):
        yield path, tree
    elif isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from _texts(value, f"{path}.{key}")
    elif isinstance(tree, list):
        for index, value in enumerate(tree):
            yield from _texts(value, f"{path}[{index}]")
