"""Kubeflow Pipelines' API, through its own generated client: errors in our words, reads tried again, whole lists."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import kfp_server_api as api
import urllib3

from pipelines.kubeflow.profile import KubeflowConfig
from sonarc.contracts.errors import ConfigError, PlatformError

TOKEN_VARIABLE = "SONARC_KFP_TOKEN"
PAGE = 100
CONNECT_S = 10.0
AWAY = (429, 502, 503, 504)
"""Answers of a server, or of a proxy before it, that is away for a while."""
PAUSES_S = (0.5, 2.0)
"""Before a thing is made again whose answer was lost."""

T = TypeVar("T")


class Missing(PlatformError):
    """What was asked for is not there."""


class Taken(PlatformError):
    """The name is taken."""


class Away(PlatformError):
    """No answer, or one that says to come back: whether the request was carried out is not known."""


class Kubeflow:
    """A Kubeflow Pipelines server. Reads and deletions are tried again while it is away."""

    def __init__(self, config: KubeflowConfig) -> None:
        self.config = config
        settings = api.Configuration(host=config.host.rstrip("/"))
        settings.ssl_ca_cert = config.ca_file or None
        settings.retries = urllib3.Retry(
            total=4, connect=2, status_forcelist=AWAY, backoff_factor=0.3, raise_on_status=False, redirect=False
        )
        if config.token_file or os.environ.get(TOKEN_VARIABLE):
            settings.api_key["authorization"] = ""  # asked for anew with each request: tokens of pods expire
            settings.api_key_prefix["authorization"] = "Bearer"
            settings.refresh_api_key_hook = self._refresh
        self._client = api.ApiClient(settings)
        self.pipelines = api.PipelineServiceApi(self._client)
        self.uploads = api.PipelineUploadServiceApi(self._client)
        self.experiments = api.ExperimentServiceApi(self._client)
        self.runs = api.RunServiceApi(self._client)
        self.recurring_runs = api.RecurringRunServiceApi(self._client)

    def _refresh(self, settings: Any) -> None:
        if not self.config.token_file:
            settings.api_key["authorization"] = os.environ[TOKEN_VARIABLE]
            return
        try:
            token = Path(self.config.token_file).read_text(encoding="utf-8").strip()
        except OSError as error:
            hint = "Check kubeflow.token_file in the profile."
            raise ConfigError(
                f"Cannot read the token file {self.config.token_file}: {error.strerror}.", hint
            ) from error
        settings.api_key["authorization"] = token

    def ask(self, verb: Callable[..., T], *args: Any, **given: Any) -> T:
        """One call of the generated client.

        Args:
            verb: a method of one of the services.

        Raises:
            Missing: there is no such thing. Taken: its name is taken. Away: the server is. PlatformError: it refuses.
        """
        with _explained(self.config.host):
            answer = verb(*args, **given, _request_timeout=(CONNECT_S, self.config.request_s))
            kind = self._client.last_response.getheader("content-type") or ""
        if "json" not in kind:
            raise PlatformError(
                f"Kubeflow at {self.config.host} answered with {kind or 'nothing'}, not with JSON.",
                f"A login page, or another server? Check the address; {TOKEN_VARIABLE} or token_file logs in.",
            )
        return answer

    def every(self, verb: Callable[..., Any], field: str, *args: Any, **given: Any) -> Iterator[Any]:
        """All entries of a list, page by page.

        Args:
            verb: a list method of one of the services.
            field: where its answers have the entries.
        """
        token = ""
        while True:
            answer = self.ask(verb, *args, page_token=token, page_size=PAGE, **given)
            yield from getattr(answer, field) or ()
            if not answer.next_page_token:
                return
            if answer.next_page_token == token:
                raise PlatformError(f"Kubeflow at {self.config.host} repeats a page of {field}.", "Try again.")
            token = answer.next_page_token

    def make(self, create: Callable[[], T], find: Callable[[], T | None]) -> T:
        """Make a thing once, though answers are lost and others make it at the same time.

        Args:
            create: makes it.
            find: what was made already, by its name.
        """
        for pause in (*PAUSES_S, None):
            try:
                return create()
            except (Taken, Away):
                found = find()
                if found is not None:
                    return found
                if pause is None:
                    raise
                time.sleep(pause)
        raise AssertionError("the last try returns or raises")

    @cached_property
    def experiment_id(self) -> str:
        """The experiment of the profile, made where it is missing."""
        name, namespace = self.config.experiment, self.config.namespace
        where = {"namespace": namespace} if namespace else {}

        def find() -> Any:
            listed = self.every(
                self.experiments.experiment_service_list_experiments, "experiments", filter=named(name), **where
            )
            return next(listed, None)

        def create() -> Any:
            body = api.V2beta1Experiment(display_name=name, **where)
            return self.ask(self.experiments.experiment_service_create_experiment, body)

        return str((find() or self.make(create, find)).experiment_id)


def named(name: str, key: str = "display_name") -> str:
    """A list's filter: only what is called so."""
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": key, "string_value": name}]})


@contextmanager
def _explained(host: str) -> Iterator[None]:
    try:
        yield
    except urllib3.exceptions.HTTPError as error:
        reason = getattr(error, "reason", None) or error
        raise Away(
            f"Kubeflow at {host} cannot be reached: {reason}.",
            "Check kubeflow.host in the profile; from outside a cluster: "
            "`kubectl port-forward -n kubeflow svc/ml-pipeline 8888:8888`.",
        ) from error
    except api.ApiException as error:
        said = _said(error)
        if error.status in (401, 403):
            raise PlatformError(
                f"Kubeflow at {host} refuses ({error.status}): {said}",
                f"{TOKEN_VARIABLE} or kubeflow.token_file logs in; the account needs rights in the namespace.",
            ) from error
        if error.status == 404:
            raise Missing(f"Kubeflow at {host} has no such thing: {said}", "Check name and namespace.") from error
        if error.status == 409:
            raise Taken(f"Kubeflow at {host} has one of that name: {said}", "Use another name.") from error
        if error.status in AWAY:
            hint = "It is away for a while: try again, what was done stays done."
            raise Away(f"Kubeflow at {host} is away ({error.status}): {said}", hint) from error
        if 300 <= (error.status or 0) < 400:
            hint = f"A login before it? {TOKEN_VARIABLE} or kubeflow.token_file logs in."
            raise PlatformError(f"Kubeflow at {host} sends elsewhere ({error.status}).", hint) from error
        raise PlatformError(
            f"Kubeflow at {host} failed ({error.status}): {said}", "The log of its pod ml-pipeline says more."
        ) from error


def _said(error: api.ApiException) -> str:
    """The server's own words, shortened: of the API, of its upload handler, or of whatever stands before it."""
    text = error.body if isinstance(error.body, str) else ""
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    if isinstance(document, dict):
        text = str(document.get("message") or document.get("error_message") or document.get("error") or text)
    line = " ".join((text or str(error.reason or "no reason given")).split())
    return line[:500].rstrip(".") + "."
