"""Rules of names: what an object refers to exists, or is a Secret that the README says how to make."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from infra.check.launcher import launchers
from infra.check.pods import pods
from infra.check.render import INFRA, NAMESPACE, Document, name_of

SECRETS: Path = INFRA / "secrets.yaml"
CLUSTER_WIDE = ("Namespace", "PriorityClass", "ClusterQueue", "ResourceFlavor", "ClusterRole", "ClusterRoleBinding")


def documented_secrets() -> dict[str, set[str]]:
    """Name → keys of the Secrets that a cluster must have."""
    return {entry["name"]: set(entry["keys"]) for entry in yaml.safe_load(SECRETS.read_text("utf-8"))}


def secrets_are_documented(documents: Sequence[Document]) -> Iterator[str]:
    """A Secret, and the key in it, is one of secrets.yaml."""
    known = documented_secrets()
    for owner, name, key in secret_references(documents):
        if name not in known:
            yield f"{owner}: the Secret {name} is not in secrets.yaml"
        elif key and key not in known[name]:
            yield f"{owner}: the Secret {name} has no key {key}"


def secret_references(documents: Sequence[Document]) -> Iterator[tuple[str, str, str]]:
    """Owner, Secret and key ('' for all) of each reference, the launcher's settings included."""
    for pod in pods(documents):
        for container in pod.containers:
            for variable in container.get("env", []):
                if found := variable.get("valueFrom", {}).get("secretKeyRef"):
                    yield pod.owner, found["name"], found["key"]
            for source in container.get("envFrom", []):
                if found := source.get("secretRef"):
                    yield pod.owner, found["name"], ""
        for volume in pod.spec.get("volumes", []):
            if found := volume.get("secret"):
                yield pod.owner, found["secretName"], ""
        for found in pod.spec.get("imagePullSecrets", []):
            yield pod.owner, found["name"], ""
    for document in documents:
        owner, spec = name_of(document), document.get("spec", {})
        if document["kind"] == "Ingress":
            for entry in spec.get("tls", []):
                yield owner, entry["secretName"], ""
        cluster = spec.get("rayClusterConfig", spec) if document["kind"].startswith("Ray") else {}
        if name := cluster.get("authOptions", {}).get("secretName"):
            yield owner, name, "auth_token"
    for owner, settings in launchers(documents):
        for reference in settings.secret_env.values():
            yield owner, reference.secret, reference.key
        mounted = [volume.secret for volume in settings.volumes if volume.secret is not None]
        for name in (*settings.secrets, *settings.image_pull_secrets, *mounted):
            yield owner, name, ""


def names_resolve(documents: Sequence[Document]) -> Iterator[str]:
    """ConfigMaps, service accounts, priority classes and roles that are referred to exist."""
    names = {(document["kind"], document["metadata"]["name"]) for document in documents}
    keys = {
        document["metadata"]["name"]: set(document.get("data", {}))
        for document in documents
        if document["kind"] == "ConfigMap"
    }
    for owner, kind, name in _references(documents):
        if (kind, name) not in names:
            yield f"{owner}: there is no {kind} {name}"
    for pod in pods(documents):
        for container in pod.containers:
            for variable in container.get("env", []):
                found = variable.get("valueFrom", {}).get("configMapKeyRef")
                if found and found["key"] not in keys.get(found["name"], set()):
                    yield f"{pod.owner}: the ConfigMap {found['name']} has no key {found['key']}"
            mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
            claims = {volume["name"] for volume in pod.spec.get("volumes", [])} | _claimed(documents, pod.owner)
            for missing in sorted(mounted - claims):
                yield f"{pod.owner}: there is no volume {missing}"


def everything_in_its_place(documents: Sequence[Document]) -> Iterator[str]:
    """Objects are in Sonarc's namespace, or of the whole cluster, and no two have one name."""
    seen = set()
    for document in documents:
        name, namespace = name_of(document), document["metadata"].get("namespace")
        if document["kind"] not in CLUSTER_WIDE and namespace != NAMESPACE:
            yield f"{name}: is in the namespace {namespace}"
        if name in seen:
            yield f"{name}: is there twice"
        seen.add(name)


def narrow_rights(documents: Sequence[Document]) -> Iterator[str]:
    """Rights are in one namespace, named one by one, and none of them leads to others."""
    for document in documents:
        name = name_of(document)
        if document["kind"] in ("ClusterRole", "ClusterRoleBinding"):
            yield f"{name}: rights beyond the namespace"
        for rule in document.get("rules", []) if document["kind"] == "Role" else ():
            asked = {*rule.get("apiGroups", []), *rule["resources"], *rule["verbs"]}
            if "*" in asked:
                yield f"{name}: everything of a kind"
            if asked & {
                "pods/exec",
                "pods/attach",
                "roles",
                "rolebindings",
                "serviceaccounts/token",
                "escalate",
                "bind",
            }:
                yield f"{name}: rights that lead to others"
            if "secrets" in rule["resources"] and (not rule.get("resourceNames") or set(rule["verbs"]) != {"get"}):
                yield f"{name}: reads Secrets that it does not name"
            if {"create", "update", "patch"} & set(rule["verbs"]) and "pods" in rule["resources"]:
                yield f"{name}: makes pods as anybody"


def _references(documents: Sequence[Document]) -> Iterator[tuple[str, str, str]]:
    for pod in pods(documents):
        for kind, field in (("ServiceAccount", "serviceAccountName"), ("PriorityClass", "priorityClassName")):
            if field in pod.spec:
                yield pod.owner, kind, pod.spec[field]
        for container in pod.containers:
            for source in container.get("envFrom", []):
                if found := source.get("configMapRef"):
                    yield pod.owner, "ConfigMap", found["name"]
        for volume in pod.spec.get("volumes", []):
            if found := volume.get("configMap"):
                yield pod.owner, "ConfigMap", found["name"]
    for document in documents:
        if document["kind"] == "RoleBinding":
            yield name_of(document), document["roleRef"]["kind"], document["roleRef"]["name"]
            for subject in document["subjects"]:
                yield name_of(document), subject["kind"], subject["name"]
        if document["kind"] == "LocalQueue":
            yield name_of(document), "ClusterQueue", document["spec"]["clusterQueue"]
        if document["kind"] == "ClusterQueue":
            for group in document["spec"]["resourceGroups"]:
                for flavor in group["flavors"]:
                    yield name_of(document), "ResourceFlavor", flavor["name"]


def _claimed(documents: Sequence[Document], owner: str) -> set[str]:
    found: list[Any] = [
        claim
        for document in documents
        if name_of(document) == owner
        for claim in document.get("spec", {}).get("volumeClaimTemplates", [])
    ]
    return {claim["metadata"]["name"] for claim in found}
