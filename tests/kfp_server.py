"""A Kubeflow Pipelines server in memory, over real HTTP: it checks each request and answer against the API's document,
gives lists in small pages, and misbehaves as told."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import yaml
from kfp_schema import Contract, contract
from loopback import serving

Document = dict[str, Any]
ROOT = "/apis/v2beta1"
GRPC = {400: 3, 401: 16, 403: 7, 404: 5, 409: 6, 429: 8, 500: 13, 503: 14, 504: 4}


class Refused(Exception):
    """The server answers with an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


@dataclass
class Fault:
    """What goes wrong with a request: an error instead of the work, or after it, or no answer at all."""

    status: int = 503
    after: bool = False
    hang_up: bool = False
    page: str = ""
    """A web page instead of an answer, as a login gives."""
    only: str = ""
    """Requests whose `METHOD path` holds this; others are let through first."""


@dataclass
class Kfp:
    """What the server holds, and what it saw."""

    address: str = ""
    token: str = ""
    """Bearer token that requests need; empty: none."""
    page_size: int = 2
    """Most entries of a page, whatever is asked for."""
    now: datetime = field(default_factory=lambda: datetime(2026, 11, 2, 6, 0, tzinfo=UTC))
    faults: list[Fault] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    """What did not fit the API's document."""
    contract: Contract | None = field(default_factory=contract)
    kinds: dict[str, dict[str, Document]] = field(
        default_factory=lambda: {
            name: {} for name in ("experiment", "pipeline", "pipeline_version", "recurring_run", "run")
        }
    )

    def all(self, kind: str) -> list[Document]:
        """Everything of a kind, as it was made."""
        return list(self.kinds[kind].values())

    def put(self, kind: str, document: Document) -> Document:
        """Keep a new thing under an id of its own."""
        key = str(uuid.uuid4())
        made = {**document, f"{kind}_id": key, "created_at": self.now.strftime("%Y-%m-%dT%H:%M:%SZ")}
        self.kinds[kind][key] = made
        self.now += timedelta(seconds=1)
        return made

    def get(self, kind: str, key: str) -> Document:
        """A thing by its id."""
        if key not in self.kinds[kind]:
            raise Refused(404, f"{kind} {key} not found.")
        return self.kinds[kind][key]

    def fire(self) -> list[str]:
        """What the scheduler does when it is time: names of the recurring runs that started a run."""
        fired = [entry for entry in self.all("recurring_run") if entry["status"] == "ENABLED"]
        for entry in fired:
            given = {key: entry[key] for key in ("experiment_id", "runtime_config", "pipeline_version_reference")}
            run = {**given, "recurring_run_id": entry["recurring_run_id"], "state": "RUNNING"}
            self.put("run", {**run, "display_name": f"{entry['display_name']}-{uuid.uuid4().hex[:5]}"})
        return [entry["display_name"] for entry in fired]

    def listed(
        self, kind: str, query: dict[str, str], where: Callable[[Document], bool] = lambda entry: True
    ) -> Document:
        """A page of things."""
        found = [entry for entry in self.all(kind) if where(entry)]
        for predicate in json.loads(query.get("filter", "{}")).get("predicates", ()):
            assert predicate["operation"] == "EQUALS"
            found = [entry for entry in found if entry.get(predicate["key"]) == predicate["string_value"]]
        if query.get("sort_by") == "created_at desc":
            found = found[::-1]
        start = int(query.get("page_token") or 0)
        end = start + min(self.page_size, int(query.get("page_size") or 20))
        plural = {"recurring_run": "recurringRuns"}.get(kind, f"{kind}s")
        page: Document = {plural: found[start:end], "total_size": len(found)}
        return page | {"next_page_token": str(end) if end < len(found) else ""}

    def answer(self, method: str, path: str, query: dict[str, str], body: Document, file: bytes) -> Document:
        """What a request does."""
        for verb, pattern, deed in _ROUTES:
            found = re.fullmatch(ROOT + pattern, path)
            if verb == method and found:
                return deed(self, query, body, file, *found.groups())
        raise Refused(404, f"no route {method} {path}")


def _new_pipeline(kfp: Kfp, query: dict[str, str], body: Document, file: bytes) -> Document:
    if any(entry["name"] == body["name"] for entry in kfp.all("pipeline")):
        raise Refused(409, f"The pipeline {body['name']} exists.")
    return kfp.put("pipeline", body)


def _pipeline_named(kfp: Kfp, query: dict[str, str], body: Document, file: bytes, name: str) -> Document:
    found = [entry for entry in kfp.all("pipeline") if entry["name"] == name]
    if not found:
        raise Refused(404, f"pipeline {name} not found.")
    return found[0]


def _new_version(kfp: Kfp, query: dict[str, str], body: Document, file: bytes) -> Document:
    kfp.get("pipeline", query["pipelineid"])
    if any(entry["name"] == query["name"] for entry in kfp.all("pipeline_version")):
        raise Refused(409, f"The version {query['name']} exists.")
    pipeline, *platform = [document for document in yaml.safe_load_all(file) if document]
    spec = {"pipeline_spec": pipeline, "platform_spec": platform[0]} if platform else pipeline
    about = {key: query[key] for key in ("name", "display_name", "description")}
    return kfp.put("pipeline_version", {**about, "pipeline_id": query["pipelineid"], "pipeline_spec": spec})


def _inputs(kfp: Kfp, body: Document) -> None:
    """Kubeflow refuses parameters that the version, or the latest one, does not ask for."""
    reference = body["pipeline_version_reference"]
    versions = [v for v in kfp.all("pipeline_version") if v["pipeline_id"] == reference["pipeline_id"]]
    chosen = reference.get("pipeline_version_id") or versions[-1]["pipeline_version_id"]
    spec = kfp.get("pipeline_version", chosen)["pipeline_spec"]
    asked = spec.get("pipeline_spec", spec)["root"]["inputDefinitions"]["parameters"]
    if unknown := set(body["runtime_config"]["parameters"]) - set(asked):
        raise Refused(400, f"parameters {unknown} are unknown")


def _new_run(kfp: Kfp, query: dict[str, str], body: Document, file: bytes) -> Document:
    _inputs(kfp, body)
    return kfp.put("run", {**body, "state": "PENDING"})


def _terminate(kfp: Kfp, query: dict[str, str], body: Document, file: bytes, key: str) -> Document:
    kfp.get("run", key)["state"] = "CANCELING"
    return {}


def _new_recurring(kfp: Kfp, query: dict[str, str], body: Document, file: bytes) -> Document:
    _inputs(kfp, body)
    fields = body["trigger"]["cron_schedule"]["cron"].split()
    if len(fields) != 6 or not re.fullmatch(r"(\*|[0-6])([-/,][0-6*]+)*", fields[5]):
        raise Refused(400, f"Schedule cron is not a supported format: {' '.join(fields)}")
    if not 1 <= int(body["max_concurrency"]) <= 10:
        raise Refused(400, "Max concurrency of a recurring run must be at least 1 and at most 10.")
    return kfp.put("recurring_run", {**body, "status": f"{body['mode']}D"})


def _switch(kfp: Kfp, query: dict[str, str], body: Document, file: bytes, key: str, verb: str) -> Document:
    kfp.get("recurring_run", key)["status"] = f"{verb.upper()}D"
    return {}


def _remove(kfp: Kfp, query: dict[str, str], body: Document, file: bytes, key: str) -> Document:
    kfp.get("recurring_run", key)
    del kfp.kinds["recurring_run"][key]
    return {}


def _one(kind: str) -> Callable[..., Document]:
    return lambda kfp, query, body, file, key: kfp.get(kind, key)


def _list(kind: str) -> Callable[..., Document]:
    def deed(kfp: Kfp, query: dict[str, str], body: Document, file: bytes, *within: str) -> Document:
        wanted = {"experiment_id": query["experiment_id"]} if "experiment_id" in query else {}
        wanted |= {"pipeline_id": within[0]} if within else {}
        return kfp.listed(kind, query, lambda entry: all(entry.get(key) == value for key, value in wanted.items()))

    return deed


_ROUTES: list[tuple[str, str, Callable[..., Document]]] = [
    ("GET", "/experiments", _list("experiment")),
    ("POST", "/experiments", lambda kfp, query, body, file: kfp.put("experiment", body)),
    ("POST", "/pipelines", _new_pipeline),
    ("GET", "/pipelines/names/([^/]+)", _pipeline_named),
    ("GET", "/pipelines/([^/]+)/versions", _list("pipeline_version")),
    ("POST", "/pipelines/upload_version", _new_version),
    ("GET", "/runs", _list("run")),
    ("POST", "/runs", _new_run),
    ("GET", "/runs/([^/:]+)", _one("run")),
    ("POST", "/runs/([^/:]+):terminate", _terminate),
    ("GET", "/recurringruns", _list("recurring_run")),
    ("POST", "/recurringruns", _new_recurring),
    ("GET", "/recurringruns/([^/:]+)", _one("recurring_run")),
    ("DELETE", "/recurringruns/([^/:]+)", _remove),
    ("POST", "/recurringruns/([^/:]+):(enable|disable)", _switch),
]


def _handler(kfp: Kfp) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            address = urlsplit(self.path)
            kfp.requests.append(f"{self.command} {address.path.removeprefix(ROOT)}")
            fault = next((f for f in kfp.faults[:1] if f.only in kfp.requests[-1]), None)
            if fault:
                kfp.faults.remove(fault)
            if fault and not fault.after:
                self._fail(fault)
                return
            status, document = self._work(address.path, dict(parse_qsl(address.query)), raw)
            if fault:
                self._fail(fault)
            else:
                self._send(status, json.dumps(document), "application/json")

        def _work(self, path: str, query: dict[str, str], raw: bytes) -> tuple[int, Document]:
            body, file = self._body(raw)
            operation = kfp.contract.operation(self.command, path) if kfp.contract else None
            if kfp.contract and operation is None:
                kfp.wrong.append(f"{self.command} {path} is unknown")
            elif kfp.contract:
                self._note(
                    "request", path, kfp.contract.request(operation, query, body, {"uploadfile"} if file else set())
                )
            try:
                if kfp.token and self.headers.get("authorization") != f"Bearer {kfp.token}":
                    raise Refused(401, "Request header error: there is no user identity header.")
                status, document = 200, kfp.answer(self.command, path, query, body or {}, file)
            except Refused as error:
                status, document = error.status, {"code": GRPC[error.status], "message": error.message, "details": []}
            if operation:
                self._note("answer", path, kfp.contract.answer(operation, status, document))
            return status, document

        def _note(self, what: str, path: str, wrong: list[str]) -> None:
            kfp.wrong += [f"{what} of {self.command} {path}: {entry}" for entry in wrong]

        def _body(self, raw: bytes) -> tuple[Document | None, bytes]:
            kind = self.headers.get("Content-Type") or ""
            if kind.startswith("multipart/"):
                parts = message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + raw).get_payload()
                (part,) = [
                    part for part in parts if part.get_param("name", header="content-disposition") == "uploadfile"
                ]
                return None, part.get_payload(decode=True)
            return (json.loads(raw) if raw else None), b""

        def _fail(self, fault: Fault) -> None:
            if fault.hang_up:
                self.close_connection = True
                return
            document = {"code": GRPC.get(fault.status, 2), "message": "as told", "details": []}
            text, kind = (fault.page, "text/html") if fault.page else (json.dumps(document), "application/json")
            self._send(fault.status, text, kind)

        def _send(self, status: int, text: str, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        do_GET = do_POST = do_DELETE = _serve

        def log_message(self, *args: Any) -> None:
            pass

    return Handler


@contextmanager
def kfp_server() -> Iterator[Kfp]:
    """A server for the duration of a `with` block; at its end nothing may have left the API's document."""
    kfp = Kfp()
    with serving(_handler(kfp)) as port:
        kfp.address = f"http://127.0.0.1:{port}"
        yield kfp
    assert kfp.wrong == []
