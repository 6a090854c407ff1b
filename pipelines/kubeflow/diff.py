"""What changed between two compiled pipelines, in the words of those who run them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import yaml

from pipelines.kubeflow.facts import Facts, components, parameters
from pipelines.kubeflow.spec import Spec

Kind = Literal["component", "parameter", "pipeline"]
ABSENT = "(none)"


@dataclass(frozen=True)
class Change:
    """One thing that differs.

    Attributes:
        kind, name: what it is of.
        field: what of it; empty: all of it was added or removed.
        before, after: the two values.
    """

    kind: Kind
    name: str
    field: str
    before: str
    after: str

    def __str__(self) -> str:
        if self.field:
            return f"~ {self.kind} {self.name}: {self.field} {self.before} → {self.after}"
        return f"+ {self.kind} {self.name} ({self.after})" if self.before == ABSENT else f"- {self.kind} {self.name}"


def changes(before: Spec, after: Spec) -> list[Change]:
    """What differs, parameters first; none: the same would run."""
    found = _of("parameter", parameters(before), parameters(after)) + _of(
        "component", components(before), components(after)
    )
    if not found and before.sha256() != after.sha256():
        found.append(Change("pipeline", after.name, "wiring", before.sha256()[:12], after.sha256()[:12]))
    return found


def _of(kind: Kind, before: Mapping[str, Facts], after: Mapping[str, Facts]) -> list[Change]:
    found = []
    for name in sorted({*before, *after}):
        if name not in after:
            found.append(Change(kind, name, "", "there", ABSENT))
        elif name not in before:
            found.append(Change(kind, name, "", ABSENT, after[name].get("image") or after[name].get("type", "")))
        else:
            for field in sorted({*before[name], *after[name]}):
                old, new = before[name].get(field, ABSENT), after[name].get(field, ABSENT)
                if old != new:
                    found.append(Change(kind, name, field, old, new))
    return found


def told(before: Spec, after: Spec) -> list[str]:
    """One line a change; the same change of several components is one line."""
    kept = {"component": {*components(before)} & {*components(after)}}
    together: dict[tuple[str, str, str, str], list[str]] = {}
    lines = []
    for change in changes(before, after):
        if change.field:
            together.setdefault((change.kind, change.field, change.before, change.after), []).append(change.name)
        else:
            lines.append(str(change))
    for (kind, field, old, new), names in together.items():
        everyone = len(names) > 1 and {*names} == kept.get(kind)
        whom = f"every {kind}" if everyone else f"{kind} {', '.join(names)}"
        lines.append(f"~ {whom}: {field} {old} → {new}")
    return lines


def text_diff(before: Spec, after: Spec, names: tuple[str, str]) -> str:
    """The two as YAML, line by line."""
    sides = [
        yaml.safe_dump_all([spec.pipeline, spec.platform], sort_keys=True, width=120).splitlines(keepends=True)
        for spec in (before, after)
    ]
    return "".join(difflib.unified_diff(*sides, *names))
