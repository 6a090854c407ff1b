"""Kubeflow Pipelines' own description of its API, and whether requests and answers fit it to the letter."""

from __future__ import annotations

import json
import re
from datetime import datetime
from functools import cache
from typing import Any

import jsonschema

from infra.check.schemas import SCHEMAS

FILE = SCHEMAS / "kfp.v2beta1.swagger.json"

_FORMATS = jsonschema.FormatChecker(())


@_FORMATS.checks("date-time", raises=ValueError)
def _moment(value: object) -> bool:
    return not isinstance(value, str) or datetime.fromisoformat(value).tzinfo is not None


@_FORMATS.checks("int64", raises=ValueError)
def _long(value: object) -> bool:
    return not isinstance(value, str) or bool(re.fullmatch(r"-?\d+", value))


class Contract:
    """The API's document. Each check returns what is wrong; nothing: all is well."""

    def __init__(self) -> None:
        document = json.loads(FILE.read_text(encoding="utf-8"))
        self.definitions = {name: _closed(body) for name, body in document["definitions"].items()}
        self.checkers: dict[str, jsonschema.Draft4Validator] = {}
        self.operations = [
            (method.upper(), re.compile(re.sub(r"\\\{[^{}]+\\\}", "[^/:]+", re.escape(path)) + "$"), operation)
            for path, methods in document["paths"].items()
            for method, operation in methods.items()
        ]

    def operation(self, method: str, path: str) -> Any:
        """What the document says of a request; None: it knows no such path."""
        found = [body for verb, pattern, body in self.operations if verb == method and pattern.match(path)]
        return found[0] if found else None

    def request(self, operation: Any, query: dict[str, str], body: Any, files: set[str]) -> list[str]:
        """What is wrong with a request."""
        asked = {entry["name"]: entry for entry in operation.get("parameters", ())}
        wrong = [f"query {name} is unknown" for name in query if asked.get(name, {}).get("in") != "query"]
        wrong += [
            f"query {name} {value!r} is no integer"
            for name, value in query.items()
            if asked.get(name, {}).get("type") == "integer" and not value.isdecimal()
        ]
        if "filter" in query:
            wrong += self.fits(json.loads(query["filter"]), {"$ref": "#/definitions/v2beta1Filter"})
        for entry in asked.values():
            if entry["in"] == "body":
                wrong += self.fits(body, entry["schema"])
            if entry["in"] == "formData" and entry.get("required") and entry["name"] not in files:
                wrong.append(f"the file {entry['name']} is missing")
        if body is not None and not any(entry["in"] == "body" for entry in asked.values()):
            wrong.append("a body where none belongs")
        return wrong

    def answer(self, operation: Any, status: int, body: Any) -> list[str]:
        """What is wrong with an answer."""
        responses = operation["responses"]
        return self.fits(body, responses.get(str(status), responses["default"])["schema"])

    def fits(self, document: Any, schema: Any) -> list[str]:
        """Where a document leaves a schema; properties that it does not know count."""
        key = json.dumps(schema, sort_keys=True)
        if key not in self.checkers:
            whole = {**_closed(schema), "definitions": self.definitions}
            self.checkers[key] = jsonschema.Draft4Validator(whole, format_checker=_FORMATS)
        errors = self.checkers[key].iter_errors(document)
        return [f"{'.'.join(map(str, error.path))}: {error.message[:200]}" for error in errors]


def _closed(schema: Any) -> Any:
    """A schema, and those inside it, that refuse what they do not name."""
    if isinstance(schema, list):
        return [_closed(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: _closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and "additionalProperties" not in schema:
        made["additionalProperties"] = False
    return made


@cache
def contract() -> Contract | None:
    """The API's document where it is at hand."""
    return Contract() if FILE.exists() else None
