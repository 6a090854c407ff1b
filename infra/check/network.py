"""Rules of who may talk to whom. Each yields a sentence for each breach."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from infra.check.pods import Pod, of_others, pods, selects
from infra.check.render import Document, name_of

ENDPOINT = "sonarc-endpoint"
"""The one Service that the world may reach."""
INNER = {8265: "Ray's jobs API", 6379: "Ray's GCS", 10001: "Ray's client port", 5000: "MLflow", 5432: "PostgreSQL"}
OPERATORS = {8265: {"kuberay-system"}}
"""Inner port → namespaces that may reach it besides Sonarc's own."""


def services_stay_inside(documents: Sequence[Document]) -> Iterator[str]:
    """Every Service is ClusterIP apart from the endpoint's; an Ingress leads to the endpoint, with TLS."""
    for document in documents:
        name, spec = name_of(document), document.get("spec", {})
        if document["kind"] == "Service":
            yield from _inside(name, document["metadata"]["name"], spec)
        if document["kind"] == "RayService":
            service = spec.get("serveService", {})
            yield from _inside(f"{name} serveService", service.get("metadata", {}).get("name", ""), service["spec"])
        for cluster in (spec, spec.get("rayClusterConfig", {})) if document["kind"].startswith("Ray") else ():
            head = cluster.get("headGroupSpec", {})
            if head.get("serviceType", "ClusterIP") != "ClusterIP" or head.get("enableIngress"):
                yield f"{name}: opens Ray's head, and with it the jobs API, to the outside"
        if document["kind"] == "Ingress":
            for backend in _backends(document):
                if backend["name"] != ENDPOINT:
                    yield f"{name}: opens {backend['name']} to the world"
            hosts = {host for entry in spec.get("tls", []) for host in entry.get("hosts", [])}
            if any(rule.get("host") not in hosts for rule in spec.get("rules", [])):
                yield f"{name}: a host without TLS"


def policies_cover_all(documents: Sequence[Document]) -> Iterator[str]:
    """All traffic of every pod is denied unless a policy names it, and each kind of pod has a policy of its own."""
    policies = _policies(documents)
    general = [policy for policy in policies if not policy["spec"]["podSelector"] and not _rules(policy)]
    for direction in ("Ingress", "Egress"):
        if not any(direction in policy["spec"]["policyTypes"] for policy in general):
            yield f"nothing denies {direction.lower()} by default"
    own = [policy for policy in policies if _rules(policy) and _chooses(policy["spec"]["podSelector"])]
    for pod in pods(documents):
        if not any(selects(policy["spec"]["podSelector"], pod.labels) for policy in own):
            yield f"{pod.owner}: no NetworkPolicy selects it"


def policies_name_peers(documents: Sequence[Document]) -> Iterator[str]:
    """No policy lets everybody in, or out to everywhere on every port; none selects what does not exist."""
    for policy in _policies(documents):
        name, selector = name_of(policy), policy["spec"]["podSelector"]
        if not of_others(selector) and not any(selects(selector, pod.labels) for pod in pods(documents)):
            yield f"{name}: selects no pod"
        for rule in policy["spec"].get("ingress", []):
            if not rule.get("from") or any(_everybody(peer) for peer in rule["from"]):
                yield f"{name}: lets everybody in"
        for rule in policy["spec"].get("egress", []):
            peers = rule.get("to", [])
            if not peers or (not rule.get("ports") and any(_everybody(peer) for peer in peers)):
                yield f"{name}: lets out to everywhere"
            for peer in peers:
                block = peer.get("ipBlock", {})
                if block.get("cidr") == "0.0.0.0/0" and "169.254.0.0/16" not in block.get("except", []):
                    yield f"{name}: reaches the cloud's metadata service"


def inner_ports(documents: Sequence[Document]) -> Iterator[str]:
    """Ray's dashboard, GCS and client port, MLflow and PostgreSQL are reached from this namespace only."""
    for policy in _policies(documents):
        chosen = [pod for pod in pods(documents) if selects(policy["spec"]["podSelector"], pod.labels)]
        for rule in policy["spec"].get("ingress", []):
            for port in sorted({port for pod in chosen for port in _opened(pod, rule)} & set(INNER)):
                for peer in rule.get("from", [{}]):
                    inside = set(peer) == {"podSelector"}
                    namespace = peer.get("namespaceSelector", {}).get("matchLabels", {})
                    if not inside and namespace.get("kubernetes.io/metadata.name") not in OPERATORS.get(port, set()):
                        yield f"{name_of(policy)}: opens {INNER[port]} ({port}) to another namespace"


def ports_exist(documents: Sequence[Document]) -> Iterator[str]:
    """A port that a policy, Service, monitor or Ingress names is one that its pods have."""
    every = pods(documents)
    for policy in _policies(documents):
        for rule in policy["spec"].get("ingress", []):
            yield from _missing(name_of(policy), policy["spec"]["podSelector"], rule, every)
        for rule in policy["spec"].get("egress", []):
            for peer in rule.get("to", []):
                if set(peer) == {"podSelector"}:
                    yield from _missing(name_of(policy), peer["podSelector"], rule, every)
    services = _services(documents)
    for name, (_, selector, spec) in services.items():
        chosen = [pod for pod in every if selector is not None and selects({"matchLabels": selector}, pod.labels)]
        for port in spec["ports"]:
            target = port.get("targetPort", port["port"])
            if not any(pod.has_port(target) for pod in chosen):
                yield f"Service/{name}: no pod of it has the port {target}"
    for document in documents:
        spec = document.get("spec", {})
        if document["kind"] == "ServiceMonitor":
            known = {
                port.get("name")
                for labels, _, service in services.values()
                if selects(spec["selector"], labels)
                for port in service["ports"]
            }
            wanted = {endpoint["port"] for endpoint in spec["endpoints"]}
        elif document["kind"] == "PodMonitor":
            known = {port for pod in every if selects(spec["selector"], pod.labels) for port in pod.ports.values()}
            wanted = {endpoint["port"] for endpoint in spec["podMetricsEndpoints"]}
        elif document["kind"] == "Ingress":
            known = {
                (name, port.get("name")) for name, (_, _, service) in services.items() for port in service["ports"]
            }
            wanted = {(backend["name"], backend["port"].get("name")) for backend in _backends(document)}
        else:
            continue
        for port in wanted - known:
            yield f"{name_of(document)}: there is no port {port}"


def _missing(name: str, selector: Mapping[str, Any], rule: Mapping[str, Any], every: Sequence[Pod]) -> Iterator[str]:
    chosen = [pod for pod in every if selects(selector, pod.labels)]
    if not chosen:
        return
    for port in rule.get("ports", []):
        if not any(pod.has_port(port["port"]) for pod in chosen):
            yield f"{name}: no pod it speaks of has the port {port['port']}"


def _services(documents: Sequence[Document]) -> dict[str, tuple[Mapping[str, str], Mapping[str, str] | None, Any]]:
    """Name → labels, selector, spec: those of this cluster, and the one KubeRay makes for the endpoint."""
    found: dict[str, tuple[Mapping[str, str], Mapping[str, str] | None, Any]] = {}
    for document in documents:
        metadata, spec = document["metadata"], document.get("spec", {})
        if document["kind"] == "Service":
            found[metadata["name"]] = (metadata.get("labels", {}), spec.get("selector"), spec)
        elif document["kind"] == "RayService" and "serveService" in spec:
            service = spec["serveService"]
            template = spec["rayClusterConfig"]["workerGroupSpecs"][0]["template"]
            made, labels = service["metadata"], template["metadata"]["labels"]
            found[made["name"]] = (made.get("labels", {}), labels, service["spec"])
    return found


def _policies(documents: Sequence[Document]) -> list[Document]:
    return [document for document in documents if document["kind"] == "NetworkPolicy"]


def _rules(policy: Document) -> list[Any]:
    return [*policy["spec"].get("ingress", []), *policy["spec"].get("egress", [])]


def _chooses(selector: Mapping[str, Any]) -> bool:
    """Whether a selector says what it selects, and not only what it does not."""
    asked = {expression["operator"] for expression in selector.get("matchExpressions", [])}
    return bool(selector.get("matchLabels")) or bool(asked & {"In", "Exists"})


def _opened(pod: Pod, rule: Mapping[str, Any]) -> set[int]:
    """The ports of a pod that a rule opens: all where it lists none; by number, range or name."""
    listed = rule.get("ports") or [{}]
    return {port for port, name in pod.ports.items() if any(_covers(entry, port, name) for entry in listed)}


def _covers(entry: Mapping[str, Any], port: int, name: str) -> bool:
    first: int | str = entry.get("port", port)
    last: int = entry.get("endPort", first)
    return first == name if isinstance(first, str) else first <= port <= last


def _everybody(peer: Mapping[str, Any]) -> bool:
    anywhere = peer.get("ipBlock", {}).get("cidr") in ("0.0.0.0/0", "::/0")
    return anywhere or peer.get("namespaceSelector", 0) == {} or not peer


def _backends(ingress: Document) -> list[Any]:
    paths = [path for rule in ingress["spec"].get("rules", []) for path in rule["http"]["paths"]]
    default = ingress["spec"].get("defaultBackend")
    return [path["backend"]["service"] for path in paths] + ([default["service"]] if default else [])


def _inside(what: str, name: str, spec: Mapping[str, Any]) -> Iterator[str]:
    if name != ENDPOINT and (spec.get("type", "ClusterIP") != "ClusterIP" or spec.get("externalIPs")):
        yield f"{what}: is not ClusterIP"
