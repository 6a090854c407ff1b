"""Objects held against the schema of their kind, strictly: an unknown field is an error, and so is an unknown kind.

Kubernetes' own kinds are known to kubernetes-validate, those of Prometheus' operator to cloudcoil's models. Everything
else needs its CustomResourceDefinition, as YAML or as the JSON of its schema, in the folder that is given; what is then
still unknown must be in `unvalidated.yaml`, with the reason.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml
from pydantic import ValidationError

from infra.check.render import INFRA, Document, name_of

KUBERNETES = "1.37"
SCHEMAS = Path(os.environ.get("SONARC_SCHEMAS") or INFRA.parents[1] / "shared" / "schemas")
"""Where the schemas of KubeRay's kinds, and of Kubeflow's API, are looked for."""

Kind = tuple[str, str]
"""apiVersion and kind."""


class Schemas:
    """The schemas there are.

    Args:
        folder: of CustomResourceDefinitions (`*.yaml`), or of `{group, version, kind, openAPIV3Schema}` (`*.json`).
    """

    def __init__(self, folder: Path | None = SCHEMAS) -> None:
        self._custom = _read(folder) if folder is not None and folder.is_dir() else {}
        self._excused: dict[Kind, str] = {
            (entry["apiVersion"], entry["kind"]): entry["reason"]
            for entry in yaml.safe_load((INFRA / "unvalidated.yaml").read_text("utf-8"))
        }

    def knows(self, api_version: str, kind: str) -> bool:
        """Whether a custom kind's schema was given."""
        return (api_version, kind) in self._custom

    def excuse(self, document: Document) -> str:
        """Why an object of this kind goes unvalidated; empty: it does not."""
        kind = (document["apiVersion"], document["kind"])
        return "" if kind in self._custom else self._excused.get(kind, "")

    def problems(self, document: Document) -> list[str]:
        """What is wrong with an object."""
        name, kind = name_of(document), (document["apiVersion"], document["kind"])
        if kind in self._custom:
            errors = jsonschema.Draft202012Validator(self._custom[kind]).iter_errors(document)
            return [f"{name}: {error.json_path}: {error.message}" for error in errors]
        if kind[0].startswith("monitoring.coreos.com/"):
            return _prometheus_problems(document)
        if kind in self._excused:
            return []
        return _built_in_problems(document)


def _built_in_problems(document: Document) -> list[str]:
    name = name_of(document)
    try:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [f"{name}: {'.'.join(str(part) for part in error.path)}: {error.message}"]
    except kubernetes_validate.SchemaNotFoundError:
        hint = "give the folder of its CustomResourceDefinition (--schemas), or list it in unvalidated.yaml"
        return [f"{name}: nothing validates {document['apiVersion']} {document['kind']}; {hint}"]
    return []


def _prometheus_problems(document: Document) -> list[str]:
    from cloudcoil.models.prometheus_operator import v1 as prometheus  # seconds to import

    model = getattr(prometheus, document["kind"], None)
    if model is None:
        return [f"{name_of(document)}: Prometheus' operator knows no such kind"]
    try:
        model.model_validate(document, extra="forbid")
    except ValidationError as error:
        return [
            f"{name_of(document)}: {'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
            for problem in error.errors()
        ]
    return []


@cache
def _read(folder: Path) -> dict[Kind, dict[str, Any]]:
    found: dict[Kind, dict[str, Any]] = {}
    for path in sorted(folder.glob("*.json")):
        tree = json.loads(path.read_text("utf-8"))
        if "openAPIV3Schema" in tree:
            found[f"{tree['group']}/{tree['version']}", tree["kind"]] = strict(tree["openAPIV3Schema"])
    for path in sorted(folder.glob("*.yaml")):
        for tree in yaml.safe_load_all(path.read_text("utf-8")):
            if tree and tree.get("kind") == "CustomResourceDefinition":
                spec = tree["spec"]
                for version in spec["versions"]:
                    kind = (f"{spec['group']}/{version['name']}", spec["names"]["kind"])
                    found[kind] = strict(version["schema"]["openAPIV3Schema"])
    return found


def strict(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A structural schema that refuses what Kubernetes would silently drop."""
    closed = dict(schema)
    if "properties" in closed:
        closed["properties"] = {name: strict(part) for name, part in closed["properties"].items()}
        if not closed.get("x-kubernetes-preserve-unknown-fields") and "additionalProperties" not in closed:
            closed["additionalProperties"] = False
    for name in ("items", "additionalProperties"):
        if isinstance(closed.get(name), Mapping):
            closed[name] = strict(closed[name])
    return closed
