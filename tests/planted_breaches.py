"""Breaches to plant in a sound overlay, each with the words of the rule that must see it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from infra.check.render import Document, name_of

Change = Callable[[list[Document]], None]


def planted(documents: Sequence[Document], change: Change) -> list[Document]:
    """A copy with the breach in it."""
    changed: list[Document] = json.loads(json.dumps(list(documents)))  # four times as fast as deepcopy
    change(changed)
    return changed


def of(documents: Sequence[Document], name: str) -> Document:
    """The object `Kind/name`."""
    return next(document for document in documents if name_of(document) == name)


def _mlflow(documents: Sequence[Document]) -> Any:
    return of(documents, "Deployment/sonarc-mlflow")["spec"]["template"]["spec"]


def _container(**changes: Any) -> Change:
    return lambda documents: _mlflow(documents)["containers"][0].update(changes)


def _context(**changes: Any) -> Change:
    return lambda documents: _mlflow(documents)["containers"][0]["securityContext"].update(changes)


def _pod(**changes: Any) -> Change:
    return lambda documents: _mlflow(documents).update(changes)


def _env(name: str, value: str) -> Change:
    return lambda documents: _mlflow(documents)["containers"][0]["env"].append({"name": name, "value": value})


def _spec(name: str, **changes: Any) -> Change:
    return lambda documents: of(documents, name)["spec"].update(changes)


def _without(name: str) -> Change:
    return lambda documents: documents.remove(of(documents, name))


def _head(**changes: Any) -> Change:
    return lambda documents: of(documents, "RayCluster/sonarc-ray")["spec"]["headGroupSpec"].update(changes)


def _replicas(documents: list[Document]) -> None:
    of(documents, "Deployment/sonarc-mlflow")["spec"]["replicas"] = 2


def _more(kind: str, **content: Any) -> Change:
    metadata = {"name": "planted", "namespace": content.pop("namespace", "sonarc")}
    return lambda documents: documents.append({"apiVersion": "v1", "kind": kind, "metadata": metadata, **content})


def _policy(**spec: Any) -> Change:
    chosen = {"matchLabels": {"app.kubernetes.io/component": "tracking"}}
    return _more("NetworkPolicy", spec={"podSelector": chosen, "policyTypes": ["Ingress", "Egress"], **spec})


def _role(**rule: Any) -> Change:
    return _more("Role", rules=[{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"], **rule}])


def _ingress(service: str, port: str, host: str = "a.example.com") -> Change:
    backend = {"service": {"name": service, "port": {"name": port}}}
    rule = {"host": host, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}
    tls = [{"hosts": ["a.example.com"], "secretName": "sonarc-endpoint-tls"}]
    return _more("Ingress", spec={"tls": tls, "rules": [rule]})


def _settings(text: str) -> Change:
    def change(documents: list[Document]) -> None:
        of(documents, "ConfigMap/sonarc-mlflow")["data"]["basic_auth.ini"] += text

    return change


def _launcher(before: str, after: str) -> Change:
    def change(documents: list[Document]) -> None:
        data = of(documents, "ConfigMap/sonarc-launcher")["data"]
        assert before in data["launcher.yaml"]
        data["launcher.yaml"] = data["launcher.yaml"].replace(before, after)

    return change


MLFLOW = "NetworkPolicy/sonarc-tracking"
KIND: dict[str, tuple[Change, str]] = {
    "a tag that moves": (_container(image="sonarc/pipeline:latest"), "is not exact"),
    "no tag": (_container(image="sonarc/pipeline"), "is not exact"),
    "a branch as a tag": (_container(image="registry:5000/sonarc/pipeline:main"), "is not exact"),
    "a short digest": (_container(image="sonarc/pipeline@sha256:abcd"), "is not exact"),
    "root by default": (_pod(securityContext={"seccompProfile": {"type": "RuntimeDefault"}}), "may run as root"),
    "root by number": (_context(runAsUser=0), "may run as root"),
    "root allowed": (_context(runAsNonRoot=False), "may run as root"),
    "privileged": (_context(privileged=True), "is privileged"),
    "the node's network": (_pod(hostNetwork=True), "hostNetwork"),
    "a folder of the node": (
        lambda documents: _mlflow(documents)["volumes"].append({"name": "x", "hostPath": {"path": "/"}}),
        "folder of its node",
    ),
    "a root that can be written": (_context(readOnlyRootFilesystem=False), "can be written"),
    "a way to more rights": (_context(allowPrivilegeEscalation=True), "may gain rights"),
    "a capability kept": (_context(capabilities={"drop": ["ALL"], "add": ["NET_ADMIN"]}), "keeps capabilities"),
    "capabilities kept": (_context(capabilities={}), "keeps capabilities"),
    "no seccomp": (_context(seccompProfile={"type": "Unconfined"}), "no seccomp"),
    "no limits": (_container(resources={"requests": {"cpu": "1", "memory": "1Gi"}}), "no limits of cpu, memory"),
    "no requests": (_container(resources={"limits": {"cpu": "1", "memory": "1Gi"}}), "no requests of cpu, memory"),
    "an init container without limits": (
        _pod(initContainers=[{"name": "init", "image": "a:1.0", "securityContext": {}}]),
        "sonarc-mlflow init: no limits",
    ),
    "a folder without a limit": (
        lambda documents: _mlflow(documents)["volumes"].append({"name": "x", "emptyDir": {}}),
        "has no limit",
    ),
    "a Secret in git": (_more("Secret", stringData={"password": "x"}), "in plain text"),
    "a password in the environment": (_env("DB_PASSWORD", "hunter2"), "DB_PASSWORD is in plain text"),
    "half a password in the environment": (_env("DB_PASSWORD", "$(HALF)hunter2"), "DB_PASSWORD is in plain text"),
    "a password in a URL": (_env("DATABASE", "postgresql://u:hunter2@h/d"), "looks like a secret"),
    "a password in a setting": (_settings("\nadmin_password = hunter22\n"), "looks like a secret"),
    "a private key": (_settings("\n-----BEGIN RSA PRIVATE KEY-----\n"), "looks like a secret"),
    "a secret as an argument": (
        _container(args=["mlflow", "--password=$(MLFLOW_AUTH_ADMIN_PASSWORD)"]),
        "a secret is an argument",
    ),
    "a token without rights": (_pod(automountServiceAccountToken=True), "and yet a token"),
    "an account with a token": (_more("ServiceAccount"), "and yet a token"),
    "no probe": (lambda documents: _mlflow(documents)["containers"][0].pop("livenessProbe"), "no livenessProbe"),
    "no time to end": (_pod(terminationGracePeriodSeconds=0), "to end"),
    "no rank": (lambda documents: _mlflow(documents).pop("priorityClassName"), "no priority class"),
    "all on one node": (
        lambda documents: (_replicas(documents), _mlflow(documents).pop("topologySpreadConstraints")),
        "may be on one node",
    ),
    "two without a budget": (_replicas, "no PodDisruptionBudget"),
    "a budget for nothing": (
        _more("PodDisruptionBudget", spec={"minAvailable": 1, "selector": {"matchLabels": {"a": "b"}}}),
        "selects nothing",
    ),
    "a budget that lets nothing go": (
        _more(
            "PodDisruptionBudget",
            spec={
                "minAvailable": 1,
                "selector": {"matchLabels": {"app.kubernetes.io/component": "tracking"}},
            },
        ),
        "no node drained",
    ),
    "MLflow on a load balancer": (_spec("Service/sonarc-mlflow", type="LoadBalancer"), "is not ClusterIP"),
    "MLflow on a node's port": (_spec("Service/sonarc-mlflow", type="NodePort"), "is not ClusterIP"),
    "MLflow at an outer address": (_spec("Service/sonarc-mlflow", externalIPs=["1.2.3.4"]), "is not ClusterIP"),
    "the dashboard on a load balancer": (_head(serviceType="LoadBalancer"), "the jobs API, to the outside"),
    "the dashboard behind an Ingress": (_head(enableIngress=True), "the jobs API, to the outside"),
    "an Ingress to MLflow": (_ingress("sonarc-mlflow", "http"), "opens sonarc-mlflow to the world"),
    "an Ingress without TLS": (_ingress("sonarc-endpoint", "serve", "b.example.com"), "a host without TLS"),
    "nothing denied": (_without("NetworkPolicy/sonarc-default-deny"), "nothing denies ingress by default"),
    "a pod without a policy": (
        lambda documents: of(documents, "Deployment/sonarc-mlflow")["spec"]["template"]["metadata"].update(
            labels={"app.kubernetes.io/component": "objects-too"}
        ),
        "Deployment/sonarc-mlflow: no NetworkPolicy selects it",
    ),
    "everybody let in": (_policy(ingress=[{}]), "lets everybody in"),
    "the world let in": (_policy(ingress=[{"from": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}]), "lets everybody in"),
    "every namespace let in": (_policy(ingress=[{"from": [{"namespaceSelector": {}}]}]), "lets everybody in"),
    "out to everywhere": (_policy(egress=[{}]), "lets out to everywhere"),
    "the metadata service": (
        _policy(egress=[{"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}], "ports": [{"port": 443}]}]),
        "metadata service",
    ),
    "a policy for nobody": (_policy(podSelector={"matchLabels": {"a": "b"}}), "selects no pod"),
    "MLflow open to another namespace": (
        _policy(ingress=[{"from": [{"namespaceSelector": {"matchLabels": {"a": "b"}}}], "ports": [{"port": 5000}]}]),
        "opens MLflow (5000)",
    ),
    "MLflow open by its port's name": (
        _policy(ingress=[{"from": [{"namespaceSelector": {"matchLabels": {"a": "b"}}}], "ports": [{"port": "http"}]}]),
        "opens MLflow (5000)",
    ),
    "MLflow open in a range of ports": (
        _policy(
            ingress=[
                {
                    "from": [{"namespaceSelector": {"matchLabels": {"a": "b"}}}],
                    "ports": [{"port": 4000, "endPort": 6000}],
                }
            ]
        ),
        "opens MLflow (5000)",
    ),
    "every port open to another namespace": (
        _policy(ingress=[{"from": [{"namespaceSelector": {"matchLabels": {"a": "b"}}}]}]),
        "opens MLflow (5000)",
    ),
    "MLflow open to an address": (
        _policy(ingress=[{"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": [{"port": 5000}]}]),
        "opens MLflow (5000)",
    ),
    "a policy's port that is nowhere": (
        _policy(ingress=[{"from": [{"podSelector": {}}], "ports": [{"port": 5001}]}]),
        "has the port 5001",
    ),
    "a Service's port that is nowhere": (
        _spec("Service/sonarc-mlflow", ports=[{"name": "http", "port": 5000, "targetPort": "www"}]),
        "has the port www",
    ),
    "an Ingress' port that is nowhere": (_ingress("sonarc-endpoint", "http"), "there is no port"),
    "an unknown Secret": (
        _container(envFrom=[{"secretRef": {"name": "sonarc-other"}}]),
        "sonarc-other is not in secrets.yaml",
    ),
    "an unknown Secret for images": (_pod(imagePullSecrets=[{"name": "sonarc-other"}]), "sonarc-other is not in"),
    "an unknown key of a Secret": (
        _container(env=[{"name": "A", "valueFrom": {"secretKeyRef": {"name": "sonarc-store", "key": "a"}}}]),
        "has no key a",
    ),
    "an unknown ConfigMap": (
        _container(envFrom=[{"configMapRef": {"name": "sonarc-other"}}]),
        "there is no ConfigMap sonarc-other",
    ),
    "an unknown volume": (_container(volumeMounts=[{"name": "x", "mountPath": "/x"}]), "there is no volume x"),
    "an unknown account": (_pod(serviceAccountName="other"), "there is no ServiceAccount other"),
    "an unknown rank": (_pod(priorityClassName="other"), "there is no PriorityClass other"),
    "another namespace": (_more("ConfigMap", namespace="default"), "is in the namespace default"),
    "an object twice": (lambda documents: documents.append(of(documents, MLFLOW)), "is there twice"),
    "rights everywhere": (_more("ClusterRole", rules=[]), "rights beyond the namespace"),
    "all verbs": (_role(verbs=["*"]), "everything of a kind"),
    "a shell in pods": (_role(resources=["pods/exec"], verbs=["create"]), "rights that lead to others"),
    "all Secrets": (_role(resources=["secrets"]), "reads Secrets that it does not name"),
    "a list of Secrets": (
        _role(resources=["secrets"], resourceNames=["a"], verbs=["list"]),
        "reads Secrets that it does not name",
    ),
    "pods of one's own": (_role(verbs=["create"]), "makes pods as anybody"),
    "a quota that is too small": (
        lambda documents: of(documents, "ResourceQuota/sonarc")["spec"]["hard"].update({"requests.memory": "1Gi"}),
        "of requests.memory is wanted",
    ),
}
"""Into the overlay `kind`."""

PROD: dict[str, tuple[Change, str]] = {
    "workers without a budget": (_without("PodDisruptionBudget/sonarc-endpoint"), "3 replicas, and no"),
    "a monitor's port that is nowhere": (
        _spec(
            "ServiceMonitor/sonarc-endpoint",
            endpoints=[{"port": "http"}],
        ),
        "there is no port http",
    ),
    "a stage that the queue never admits": (
        _launcher("min_workers: 4, max_workers: 4", "min_workers: 9, max_workers: 9"),
        "never admits pretrain",
    ),
    "a setting that the launcher does not know": (_launcher("ttl_seconds", "ttl_secs"), "ttl_secs: Extra inputs"),
    "a launcher's image that moves": (_launcher("worker:0.1.0", "worker:latest"), "is not pinned"),
    "a Secret whose keys the launcher takes": (
        _launcher("secret_env:", "secrets: [sonarc-other]\nsecret_env:"),
        "sonarc-other is not in",
    ),
    "a Secret of the launcher": (_launcher("secret: sonarc-tuning", "secret: sonarc-other"), "sonarc-other is not in"),
    "a queue without its flavor": (_without("ResourceFlavor/sonarc-gpu"), "there is no ResourceFlavor sonarc-gpu"),
    "no time for the endpoint to drain": (
        lambda documents: of(documents, "RayService/sonarc")["spec"]["rayClusterConfig"]["headGroupSpec"]["template"][
            "spec"
        ].update(terminationGracePeriodSeconds=30),
        "is not given 61 s to end",
    ),
}
"""Into the overlay `prod`."""
