"""One migrated SQLite database, copied for each test: MLflow's migrations take seconds."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sonarc.tracking import mlflow_client


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh database with MLflow's schema, migrated by two at once, as when two runs begin together."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(mlflow_client.initialise, [f"sqlite:///{path}"] * 2))
    return path


@pytest.fixture
def tracking_uri(migrated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A tracking URI of its own."""
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    place = tmp_path / "mlflow" / "mlflow.db"
    place.parent.mkdir()
    for suffix in ("", "-wal"):
        source = migrated.with_name(migrated.name + suffix)
        if source.exists():
            shutil.copyfile(source, place.with_name(place.name + suffix))
    return f"sqlite:///{place}"
