"""The double of `kube_api` over real HTTP: list, create, get, delete, watch; 403, 404, 409, 422 and what is planned."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from kube_api import NAMESPACE, Fault, KubeApi, Object, matches, status_of
from loopback import serving

from infra.check.schemas import Schemas


@contextmanager
def kube_api() -> Iterator[KubeApi]:
    """A running double."""
    api, schemas = KubeApi(), Schemas()
    collection = f"/apis/ray.io/v1/namespaces/{NAMESPACE}/rayjobs"
    pods = f"/api/v1/namespaces/{NAMESPACE}/pods"

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            parts = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "{}")
            api.requests.append((self.command, parts.path, query))
            fault = self._fault(parts.path, query)
            if fault is not None and not fault.after:
                return self._answer(fault.status, status_of(fault.status, "Told", fault.message), fault.headers)
            code, answer = self._act(parts.path, query, body)
            if fault is not None:
                self._answer(fault.status, status_of(fault.status, "Told", fault.message), fault.headers)
            elif isinstance(answer, dict):
                self._answer(code, answer)
            else:
                self._stream(answer)

        def _fault(self, path: str, query: dict[str, str]) -> Fault | None:
            method = "WATCH" if query.get("watch") == "True" else self.command
            with api.changed:
                for fault in api.faults:
                    if fault.method == method and re.search(fault.path, path):
                        api.faults.remove(fault)
                        return fault
            return None

        def _act(self, path: str, query: dict[str, str], body: Object) -> tuple[int, Object | Iterator[str]]:
            name = path.removeprefix(collection).strip("/")
            if path == collection and self.command == "POST":
                return self._create(body)
            if path == collection:
                if query.get("watch") != "True":
                    return 200, api.listed(query)
                return 200, (json.dumps(event) + "\n" for event in api.watched(query))
            if path == pods:
                return 200, {"kind": "PodList", "items": [pod for pod in api.pods if matches(pod, query)]}
            if path.startswith(pods) and path.endswith("/log"):
                if int(query.get("sinceSeconds", 1)) < 1:
                    return 422, status_of(422, "Invalid", "sinceSeconds: must be greater than 0")
                return 200, api.streamed(path.split("/")[-2], query)
            with api.changed:
                found = api.rayjobs.get(name) if path.startswith(collection) else None
                if found is None:
                    return 404, status_of(404, "NotFound", f'{path} "{name}" not found')
                if self.command == "DELETE":
                    assert body["propagationPolicy"] == "Foreground"
                    api.delete(name)
                return 200, deepcopy(api.rayjobs[name])

        def _create(self, body: Object) -> tuple[int, Object]:
            api.created.append(deepcopy(body))
            wrong = schemas.problems(body) if schemas.knows("ray.io/v1", "RayJob") else []
            if wrong:
                return 422, status_of(422, "Invalid", "; ".join(wrong))
            with api.changed:
                name = body["metadata"]["name"]
                if name in api.rayjobs:
                    return 409, status_of(409, "AlreadyExists", f'rayjobs.ray.io "{name}" already exists')
                return 201, api.add(body)

        def _answer(self, code: int, answer: Object, headers: dict[str, str] | None = None) -> None:
            content = json.dumps(answer).encode()
            self.send_response(code)
            for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def _stream(self, lines: Iterator[str]) -> None:
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            try:
                for line in lines:
                    content = line.encode()
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(content), content))
                    self.wfile.flush()
                self.wfile.write(b"0\r\n\r\n")
            except OSError:  # the client left, or the stream is to break off
                self.close_connection = True

        do_GET = do_POST = do_DELETE = _serve

        def log_message(self, *args: Any) -> None:
            pass

    with serving(Handler) as port:
        api.address = f"http://127.0.0.1:{port}"
        yield api
