"""Dashboard and alert rules speak of metrics, labels and error codes that the endpoint has."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from serving import errors
from serving.metrics import Metrics
from serving.state import Lineup, ServedModel
from serving.work import Report, Timings

MONITORING = Path(__file__).parents[2] / "infra" / "monitoring"
DASHBOARD: dict[str, Any] = json.loads((MONITORING / "dashboard.json").read_text())
ALERTS: dict[str, Any] = yaml.safe_load((MONITORING / "alerts.yaml").read_text())
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


def _told() -> dict[str, dict[str, set[str]]]:
    """Samples that the endpoint tells → label → values, after every kind of answer."""
    metrics = Metrics()
    served = ServedModel(package_uri="file:///p", package_sha256="ab" * 32, model="sonarc", version="3")
    metrics.present(Lineup(champion=served, candidate=None))
    timings = Timings(0.001, 0.01, 0.2, 0.02, 0.23)
    metrics.observe(Report("/v1/audio/generations", 200, timings=timings, batch=2, waiting=1, audio_s=3.0))
    for error in (errors.too_busy(1), errors.internal()):
        metrics.observe(Report("/v1/audio/generations", error.status, code=error.code))
    found: dict[str, dict[str, set[str]]] = {}
    for family in text_string_to_metric_families(metrics.text(backed_off=False, jobs={"queued": 0})):
        for sample in family.samples:
            for label, value in sample.labels.items():
                found.setdefault(sample.name, {}).setdefault(label, set()).add(value)
            found.setdefault(sample.name, {})
    return found


@pytest.mark.parametrize("query", [*QUERIES, *(rule["expr"] for rule in RULES if "up{" not in rule["expr"])])
def test_a_query_names_what_the_endpoint_tells(query: str) -> None:
    told = _told()
    asked = re.findall(r"\b(sonarc_\w+)(?:\{([^}]*)\})?", query)
    assert asked
    for name, matchers in asked:
        assert name in told, name
        for label, how, value in re.findall(r'(\w+)(=~|!=|=)"([^"]*)"', matchers):
            if label == "instance":
                continue
            assert label in told[name], (name, label)
            if how == "=~":
                assert any(re.fullmatch(value, known) for known in told[name][label])
            else:
                assert value in told[name][label], (name, label, value)
    for grouped in re.findall(r"by \(([^)]*)\)", query):
        labels = {label for name, _ in asked for label in told[name]} | {"instance", "le"}
        assert {part.strip() for part in grouped.split(",")} <= labels


def test_every_alert_says_what_to_do() -> None:
    for rule in RULES:
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["summary"] and rule["annotations"]["action"]


def test_every_alert_leads_to_its_entry_in_the_runbook() -> None:
    runbook = (MONITORING.parents[1] / "docs" / "runbook.md").read_text("utf-8")
    entries = re.findall(r"^### (\w+)\n\n\*\*Fires\*\*.*\n\n\*\*Look\*\*(?:.+\n)+\n\*\*Do\*\*", runbook, re.MULTILINE)
    assert entries == [rule["alert"] for rule in RULES]
    for rule in RULES:
        assert rule["annotations"]["runbook"] == f"docs/runbook.md#{rule['alert'].lower()}"


def test_panels_do_not_overlap_and_have_names_of_their_own() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken and place["x"] + place["w"] <= 24, panel["title"]
        taken |= cells
    for key in ("id", "title"):
        assert len({panel[key] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [["check", "rules", "alerts.yaml"], ["test", "rules", "alerts.test.yaml"], ["check", "config", "prometheus.yaml"]],
    ids=lambda command: " ".join(command[:2]),
)
def test_promtool_agrees(command: list[str]) -> None:
    tool = shutil.which("promtool")
    assert tool, "No promtool is here. Debian's package is prometheus."
    done = subprocess.run([tool, *command], cwd=MONITORING, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
