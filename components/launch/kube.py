"""What the launcher asks of the Kubernetes API, and the errors of that.

Calls are repeated after 429, 5xx and lost connections, with growing pauses and as Retry-After says; that is safe for
a create too, because a name is given away once. Rights needed in the namespace: rayjobs.ray.io create, get, list,
watch, delete; pods list; pods/log get.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import urllib3
from kubernetes import client, config, watch
from kubernetes.client import ApiException

from sonarc.contracts.errors import StageError

GROUP, VERSION, PLURAL = "ray.io", "v1", "rayjobs"
RETRIES = urllib3.Retry(
    total=6,
    backoff_factor=0.5,
    backoff_jitter=0.5,
    status_forcelist=(429, 500, 502, 503, 504),
    allowed_methods=None,
    raise_on_status=False,
)
CALL_SECONDS = (5, 30)
"""To connect, and to wait for an answer."""
NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")

RayJobObject = dict[str, Any]


class ConflictError(Exception):
    """The name is taken."""


class GoneError(Exception):
    """What was to be followed lies too far back: list anew."""


class UnreachableError(StageError):
    """The API server did not answer, or not sensibly, in spite of repetitions."""

    def __init__(self, message: str) -> None:
        super().__init__(f"The Kubernetes API {message}.", "Look: kubectl get --raw /readyz")


class Kube:
    """RayJobs and their pods in one namespace."""

    def __init__(self, api: client.ApiClient, namespace: str, own_namespace: str) -> None:
        self.namespace, self.own_namespace = namespace, own_namespace
        self._objects, self._core = client.CustomObjectsApi(api), client.CoreV1Api(api)

    @classmethod
    def connect(cls, namespace: str | None) -> Kube:
        """As this pod's service account, or, outside a cluster, by the kubeconfig.

        Raises:
            StageError: there is neither.
        """
        settings = client.Configuration()
        settings.retries = RETRIES
        try:
            if "KUBERNETES_SERVICE_HOST" in os.environ:
                config.load_incluster_config(client_configuration=settings)
                own = NAMESPACE_FILE.read_text(encoding="utf-8").strip()
            else:
                file = os.environ.get("KUBECONFIG") or None
                config.load_kube_config(config_file=file, client_configuration=settings)
                context = config.list_kube_config_contexts(config_file=file)[1]
                own = context["context"].get("namespace", "default")
        except (config.ConfigException, OSError) as error:
            raise StageError(
                f"No Kubernetes cluster is known here: {error}.",
                "Give the component's pod a service account, or set KUBECONFIG; outside a cluster use the backend "
                "ray_jobs.",
            ) from error
        return cls(client.ApiClient(settings), namespace or own, own)

    def create(self, body: Mapping[str, Any]) -> RayJobObject:
        """Make a RayJob."""
        with self._explained("create", body["metadata"]["name"]):
            made: RayJobObject = self._objects.create_namespaced_custom_object(
                GROUP, VERSION, self.namespace, PLURAL, dict(body), _request_timeout=CALL_SECONDS
            )
        return made

    def get(self, name: str) -> RayJobObject | None:
        """A RayJob, or None."""
        try:
            with self._explained("get", name):
                found: RayJobObject = self._objects.get_namespaced_custom_object(
                    GROUP, VERSION, self.namespace, PLURAL, name, _request_timeout=CALL_SECONDS
                )
        except LookupError:
            return None
        return found

    def rayjobs(self, *, labels: Mapping[str, str] | None = None, name: str = "") -> tuple[list[RayJobObject], str]:
        """RayJobs with those labels, or of that name, and the version of the list, from which to watch on."""
        with self._explained("list", name or "RayJobs"):
            found = self._objects.list_namespaced_custom_object(
                GROUP,
                VERSION,
                self.namespace,
                PLURAL,
                label_selector=_selector(labels or {}),
                field_selector=f"metadata.name={name}" if name else "",
                _request_timeout=CALL_SECONDS,
            )
        return found["items"], found["metadata"]["resourceVersion"]

    def delete(self, name: str) -> bool:
        """Ask for a RayJob to be removed, after its cluster and pods; False if there is none."""
        try:
            with self._explained("delete", name):
                self._objects.delete_namespaced_custom_object(
                    GROUP,
                    VERSION,
                    self.namespace,
                    PLURAL,
                    name,
                    body=client.V1DeleteOptions(propagation_policy="Foreground"),
                    _request_timeout=CALL_SECONDS,
                )
        except LookupError:
            return False
        return True

    def watch(self, name: str, version: str, seconds: int) -> Iterator[tuple[str, RayJobObject]]:
        """Kind and object of each event of a RayJob after a version, for so many seconds; bookmarks too.

        Raises:
            GoneError: the version lies too far back.
            UnreachableError: the stream broke.
        """
        with self._explained("watch", name):
            for event in watch.Watch().stream(
                self._objects.list_namespaced_custom_object,
                GROUP,
                VERSION,
                self.namespace,
                PLURAL,
                field_selector=f"metadata.name={name}",
                resource_version=version,
                allow_watch_bookmarks=True,
                timeout_seconds=seconds,
                _request_timeout=(CALL_SECONDS[0], seconds + CALL_SECONDS[1]),
            ):
                yield event["type"], event["raw_object"]

    def pods(self, labels: Mapping[str, str]) -> list[dict[str, Any]]:
        """Pods with those labels, as plain data."""
        with self._explained("list pods of", _selector(labels)):
            answer = self._core.list_namespaced_pod(
                self.namespace,
                label_selector=_selector(labels),
                _preload_content=False,
                _request_timeout=CALL_SECONDS,
            )
            items: list[dict[str, Any]] = json.loads(answer.data)["items"]
        return items

    def log(self, pod: str, since_seconds: int | None, silence: int) -> Iterator[str]:
        """The lines of a pod's log as they come, each with its time; ends with the container, or breaks off.

        Args:
            since_seconds: not what is older than so many seconds; None: from the beginning.
            silence: seconds after which a log that says nothing is asked for anew.
        """
        since = {} if since_seconds is None else {"since_seconds": since_seconds}
        with self._explained("read the log of", pod):
            answer = self._core.read_namespaced_pod_log(
                pod,
                self.namespace,
                follow=True,
                timestamps=True,
                _preload_content=False,
                _request_timeout=(CALL_SECONDS[0], silence),
                **since,
            )
            try:
                yield from watch.watch.iter_resp_lines(answer)
            finally:
                answer.close()
                answer.release_conn()

    @contextmanager
    def _explained(self, verb: str, what: str) -> Iterator[None]:
        try:
            yield
        except ApiException as error:
            raise self._error(error, verb, what) from error
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise UnreachableError(f"could not be asked to {verb} {what}: {error}") from error

    def _error(self, error: ApiException, verb: str, what: str) -> Exception:
        said = _said(error)
        if error.status == 409:
            return ConflictError(said)
        if error.status == 410:
            return GoneError(said)
        if error.status == 404 and verb in ("get", "delete", "read the log of"):
            return LookupError(said)
        if error.status in (0, 429) or error.status >= 500:
            return UnreachableError(f"did not {verb} {what} ({error.status}): {said}")
        hints = {
            401: "The service account's token is not accepted; look at the component's pod and its service account.",
            403: f"Look at its rights and at quotas: kubectl auth can-i --list -n {self.namespace}; "
            f"kubectl describe resourcequota,limitrange -n {self.namespace}",
            404: "KubeRay, or the namespace, is not there: kubectl get crd rayjobs.ray.io; "
            f"kubectl get namespace {self.namespace}",
        }
        hint = hints.get(
            error.status,
            "The object was refused by its schema or an admission rule; compare the launcher's settings: "
            f"kubectl get configmap,validatingwebhookconfigurations -n {self.namespace}",
        )
        return StageError(f"Kubernetes refuses to {verb} {what} in {self.namespace} ({error.status}): {said}", hint)


def _selector(labels: Mapping[str, str]) -> str:
    return ",".join(f"{name}={value}" for name, value in sorted(labels.items()))


def _said(error: ApiException) -> str:
    """The API server's own sentence."""
    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        return str(error.reason)
