"""Where the commands of one machine read and write."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from sonarc.contracts import store

RAY_VARIABLE = "SONARC_RAY"
"""Address of the jobs API of a Ray that runs already."""


@dataclass(frozen=True)
class Places:
    """Where a local run reads and writes.

    Attributes:
        runs: folder of run folders, `latest` and `serve.json`.
        store: URI of the store.
        tracking: MLflow's tracking URI.
        ray: address of the jobs API of a Ray that runs already; empty: each run has one of its own.
    """

    runs: Path
    store: str
    tracking: str
    ray: str = ""

    @classmethod
    def default(cls, runs: Path = Path("runs"), place: str = "", tracking: str = "") -> Places:
        """Runs in the working directory; store and MLflow as named, or by SONARC_STORE and MLFLOW_TRACKING_URI, or in
        the user's cache folder; a Ray that runs already by SONARC_RAY."""
        database = store.cache_root() / "mlflow" / "mlflow.db"
        server = tracking or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{database}"
        where = store.as_uri(place) if place else store.default_store()
        return cls(runs.resolve(), where, server, os.environ.get(RAY_VARIABLE, ""))
