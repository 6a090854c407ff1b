"""The state of a Kubernetes API server's double: RayJobs that live by script, their pods, and pods' logs.

Versions only grow; a watch is a stream of events and bookmarks, and 410 for a place that was compacted away; a deletion
in the foreground takes its time. `kube_server` serves it over HTTP. Faults are planned: `api.fail("POST", 503)`.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Any

NAMESPACE = "sonarc"
REMOVAL_SECONDS = 0.1
BOOKMARK_SECONDS = 0.1
PATIENCE_SECONDS = 30.0

Object = dict[str, Any]
Step = Object | Callable[["KubeApi", str], None]
"""A status that a RayJob gets, or something that happens to it."""


def initializing(cluster: str = "c1") -> Object:
    return {"jobDeploymentStatus": "Initializing", "rayClusterName": cluster}


RUNNING: Object = {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING", "rayClusterName": "c1"}
SUCCEEDED: Object = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED", "message": "Job finished."}
FAILED: Object = {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "reason": "AppFailed", "message": "exit 1"}
SUSPENDED: Object = {"jobDeploymentStatus": "Suspended"}


def watches(count: int) -> Callable[[KubeApi, str], None]:
    """Wait until the RayJob has been watched for the so-many-th time."""

    def wait(api: KubeApi, name: str) -> None:
        def seen() -> int:
            asked = [query for method, _, query in list(api.requests) if method == "GET" and query.get("watch")]
            return sum(query["fieldSelector"].endswith(name) for query in asked)

        until = time.monotonic() + PATIENCE_SECONDS
        while seen() < count and time.monotonic() < until:
            time.sleep(0.01)

    return wait


@dataclass
class Fault:
    """The next request of this kind is answered so."""

    method: str
    path: str
    status: int
    message: str
    after: bool = False
    """Done all the same: only the answer is lost."""
    headers: dict[str, str] = field(default_factory=dict)


class KubeApi:
    """What the server holds; `life` is what every RayJob that is made goes through."""

    def __init__(self) -> None:
        self.life: Sequence[Step] = (initializing(), RUNNING, SUCCEEDED)
        self.pace = 0.02
        self.rayjobs: dict[str, Object] = {}
        self.pods: list[Object] = []
        self.logs: dict[str, list[tuple[str, str]]] = {}
        self.cuts: dict[str, list[int]] = {}
        """Pod → after how many lines its log's stream breaks off, one number for each time it is asked for."""
        self.zone: tzinfo = UTC
        """Of the container runtime: what it writes before each line has its offset."""
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.created: list[Object] = []
        self.faults: list[Fault] = []
        self.address = ""
        self.changed = threading.Condition(threading.RLock())
        self._version, self._oldest = 1000, 0
        self.events: list[tuple[int, str, Object]] = []

    def fail(self, method: str, status: int, message: str = "told to", *, path: str = "rayjobs", **more: Any) -> None:
        """Plan a fault."""
        self.faults.append(Fault(method, path, status, message, **more))

    def compact(self) -> None:
        """Forget all events so far: to watch on from before is Gone."""
        with self.changed:
            self._version += 10
            self._oldest = self._version
            self.events.clear()
            self.changed.notify_all()

    def put(self, name: str, **metadata: Any) -> Object:
        """A RayJob that is there already."""
        body = {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": {"name": name, **metadata}, "spec": {}}
        return self.add(body, life=())

    def add(self, body: Object, life: Sequence[Step] | None = None) -> Object:
        with self.changed:
            metadata = body["metadata"] | {"namespace": NAMESPACE, "uid": f"uid-{self._version}"}
            made = body | {"metadata": metadata | {"creationTimestamp": _now()}}
            self._record("ADDED", made)
        threading.Thread(target=self._live, args=(metadata["name"], life), daemon=True).start()
        return made

    def status(self, name: str, status: Object) -> None:
        """What the operator reports."""
        with self.changed:
            if name in self.rayjobs:
                self._record("MODIFIED", self.rayjobs[name] | {"status": deepcopy(status)})

    def delete(self, name: str) -> None:
        """Marked at once, gone a little later, as in the foreground."""
        with self.changed:
            marked = deepcopy(self.rayjobs[name])
            marked["metadata"]["deletionTimestamp"] = _now()
            self._record("MODIFIED", marked)
        threading.Timer(REMOVAL_SECONDS, self._remove, (name,)).start()

    def pod(self, name: str, labels: dict[str, str], phase: str = "Running", waiting: Object | None = None) -> None:
        """A pod, which may wait for its image."""
        state = {"waiting": waiting} if waiting else {"running": {}}
        status = {"phase": phase, "containerStatuses": [{"name": "c", "image": "i:1", "state": state}]}
        metadata = {"name": name, "uid": f"uid-{name}", "labels": labels, "creationTimestamp": _now()}
        with self.changed:
            self.pods = [pod for pod in self.pods if pod["metadata"]["name"] != name]
            self.pods.append({"metadata": metadata, "status": status})

    def print(self, pod: str, line: str) -> None:
        """A line of a pod's log."""
        with self.changed:
            self.logs.setdefault(pod, []).append((_stamp(self.zone), line))
            self.changed.notify_all()

    def end_pod(self, name: str, phase: str = "Succeeded") -> None:
        with self.changed:
            next(pod for pod in self.pods if pod["metadata"]["name"] == name)["status"]["phase"] = phase
            self.changed.notify_all()

    def asked(self, method: str, path: str = "") -> list[dict[str, str]]:
        """Queries of the requests so far."""
        return [query for m, p, query in self.requests if m == method and re.search(path, p)]

    def kubeconfig(self, folder: Path) -> Path:
        """How a client finds it."""
        named = {"cluster": "double", "user": "tester", "namespace": NAMESPACE}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "double", "cluster": {"server": self.address}}],
            "users": [{"name": "tester", "user": {"token": "the-token"}}],
            "contexts": [{"name": "double", "context": named}],
            "current-context": "double",
        }
        path = folder / "kubeconfig.json"
        path.write_text(json.dumps(document), encoding="utf-8")
        return path

    def _live(self, name: str, life: Sequence[Step] | None) -> None:
        for step in self.life if life is None else life:
            time.sleep(self.pace)
            if callable(step):
                step(self, name)
            else:
                self.status(name, step)

    def _record(self, kind: str, changed: Object) -> None:
        self._version += 1
        kept = deepcopy(changed)
        kept["metadata"]["resourceVersion"] = str(self._version)
        self.rayjobs[kept["metadata"]["name"]] = kept
        if kind == "DELETED":
            del self.rayjobs[kept["metadata"]["name"]]
        self.events.append((self._version, kind, kept))
        self.changed.notify_all()

    def _remove(self, name: str) -> None:
        with self.changed:
            if name in self.rayjobs:
                self._record("DELETED", self.rayjobs[name])

    def listed(self, query: dict[str, str]) -> Object:
        with self.changed:
            items = [deepcopy(item) for item in self.rayjobs.values() if matches(item, query)]
            return {"kind": "RayJobList", "items": items, "metadata": {"resourceVersion": str(self._version)}}

    def watched(self, query: dict[str, str]) -> Iterator[Object]:
        seen, until = int(query["resourceVersion"]), time.monotonic() + float(query["timeoutSeconds"])
        while (left := until - time.monotonic()) > 0:
            with self.changed:
                if self._version <= seen:
                    self.changed.wait(min(left, BOOKMARK_SECONDS))
                expired = seen < self._oldest
                news = [event for event in self.events if event[0] > seen]
            if expired:
                yield {"type": "ERROR", "object": status_of(410, "Expired", "too old resource version")}
                return
            if not news:
                yield {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": str(seen)}}}
            for version, kind, event in news:
                seen = version
                if matches(event, query):
                    yield {"type": kind, "object": event}

    def streamed(self, pod: str, query: dict[str, str]) -> Iterator[str]:
        since = datetime.now(UTC).timestamp() - float(query.get("sinceSeconds", "1e9"))
        with self.changed:
            cuts = self.cuts.get(pod, [])
            shown, most = 0, cuts.pop(0) if cuts else None
        while True:
            with self.changed:
                lines = [line for line in self.logs.get(pod, []) if _unix(line[0]) >= since]
                ended = any(p["metadata"]["name"] == pod and p["status"]["phase"] != "Running" for p in self.pods)
                if len(lines) == shown and not ended:
                    self.changed.wait(1.0)
            for stamp, line in lines[shown:]:
                if most is not None and shown >= most:
                    raise BrokenPipeError
                yield f"{stamp} {line}\n"
                shown += 1
            if ended and shown == len(lines):
                return


def matches(item: Object, query: dict[str, str]) -> bool:
    metadata = item["metadata"]
    wanted = dict(pair.split("=", 1) for pair in query.get("labelSelector", "").split(",") if pair)
    named = query.get("fieldSelector", "").removeprefix("metadata.name=")
    labels = metadata.get("labels", {})
    return (not named or metadata["name"] == named) and all(labels.get(k) == v for k, v in wanted.items())


def status_of(code: int, reason: str, message: str) -> Object:
    return {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message}


def _now() -> str:
    return _stamp(UTC)


def _stamp(zone: tzinfo) -> str:
    now = datetime.now(zone)
    return f"{now:%Y-%m-%dT%H:%M:%S.%f}000{'Z' if zone is UTC else now.isoformat()[-6:]}"


def _unix(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp()
