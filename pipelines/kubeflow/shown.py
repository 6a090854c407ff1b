"""Kubeflow's runs in the terminal."""

from __future__ import annotations

from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipelines.kubeflow.client import Kubeflow
from pipelines.kubeflow.runs import Run, recent
from pipelines.kubeflow.versions import version_names

_STYLES = {"SUCCEEDED": "green", "FAILED": "red", "RUNNING": "cyan", "PENDING": "dim"}


def show_runs(kubeflow: Kubeflow, count: int, console: Console | None = None) -> None:
    """Print the last runs."""
    console = console or Console()
    runs = recent(kubeflow, count)
    if not runs:
        console.print(f"No run of {kubeflow.config.experiment!r} yet: `sonarc pipeline submit` starts one.")
        return
    versions = version_names(kubeflow)
    table = Table(box=None, header_style="bold")
    for column in ("run", "id", "state", "created", "took", "version", "by", "error"):
        table.add_column(column, overflow="fold")
    for run in runs:
        table.add_row(
            run.name,
            run.id,
            Text(run.state.lower(), _STYLES.get(run.state, "yellow")),
            f"{run.created:%Y-%m-%d %H:%M}" if run.created else "–",
            _took(run),
            versions.get(run.version_id, run.version_id),
            "a schedule" if run.schedule_id else "hand",
            run.error,
        )
    console.print(table)


def _took(run: Run) -> str:
    if run.created is None:
        return "–"
    minutes = ((run.finished or datetime.now(UTC)) - run.created).total_seconds() / 60
    return f"{minutes / 60:.1f} h" if minutes >= 90 else f"{minutes:.0f} min"
