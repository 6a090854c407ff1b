"""Logging: one format, to standard error; prompts and secrets are never logged."""

from __future__ import annotations

import logging
import os

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def setup(level: str | None = None) -> None:
    """Configure the root logger once; `SONARC_LOG` sets the level (default INFO)."""
    logging.basicConfig(level=(level or os.environ.get("SONARC_LOG", "INFO")).upper(), format=FORMAT, force=True)
    for noisy in (
        "urllib3",
        "botocore",
        "aiobotocore",
        "s3fs",
        "fsspec",
        "matplotlib",
        "alembic",
        "numba",
        "mlflow.store",
    ):
        logging.getLogger(noisy).setLevel(logging.WARNING)
