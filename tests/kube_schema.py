"""KubeRay's own schema of a RayJob, made strict: a field it does not know is an error, as it is lost on a cluster."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema

FOLDER = Path(os.environ.get("SONARC_SCHEMAS") or Path(__file__).resolve().parents[2] / "shared" / "schemas")
RAYJOB = FOLDER / "rayjob.v1.json"


def problems(rayjob: Any) -> list[str]:
    """What the schema has against an object; nothing where the schema is not at hand."""
    if not RAYJOB.exists():
        return []
    return [f"{error.json_path}: {error.message}" for error in _validator().iter_errors(rayjob)]


@cache
def _validator() -> jsonschema.Draft202012Validator:
    schema = json.loads(RAYJOB.read_text("utf-8"))["openAPIV3Schema"]
    schema["properties"]["metadata"] = {"type": "object"}  # the API server's own, which the schema leaves open
    return jsonschema.Draft202012Validator(_strict(schema))


def _strict(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {name: _strict(part) for name, part in schema.items()}
    open_ended = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if isinstance(schema.get("properties"), dict) and not open_ended:
        strict["additionalProperties"] = False
    return strict
