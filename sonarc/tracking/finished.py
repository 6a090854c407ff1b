"""A pipeline run that is over, as MLflow holds it: its documents, its audio, its settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sonarc.contracts.errors import TrackingError
from sonarc.tracking import mlflow_client

SUMMARY, SAMPLES = "summary.json", "samples"


@dataclass(frozen=True)
class Finished:
    """A run.

    Attributes:
        folder: local copy of its `summary.json` and, if it has any, `samples/`.
        settings: dotted names → values, as text.
    """

    run_id: str
    folder: Path
    settings: Mapping[str, str]


def download(uri: str, run_id: str, into: Path) -> Finished:
    """Copy what a pipeline run left in MLflow into a folder.

    Raises:
        TrackingError: there is no such run, it is not a pipeline run that has ended, or MLflow is away.
    """
    with mlflow_client.explained(uri):
        client = mlflow_client.client(uri)
        run = client.get_run(run_id)
        kept = {file.path for file in client.list_artifacts(run_id)}
        if SUMMARY not in kept:
            raise TrackingError(
                f"The MLflow run {run_id} ({run.info.run_name}, {run.info.status}) has no {SUMMARY}.",
                "Name the parent run of a pipeline run that has ended.",
            )
        folder = into / run_id
        folder.mkdir(parents=True, exist_ok=True)
        for name in (SUMMARY, SAMPLES):
            if name in kept:
                client.download_artifacts(run_id, name, str(folder))
    return Finished(run_id, folder, dict(run.data.params))
