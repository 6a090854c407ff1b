"""Checkpoints in the published layout of Stable Audio Open Small, in and out.

The entry points that others may build on are listed, with an example, in docs/published.md.
"""

from __future__ import annotations

from sonarc.published.config import PublishedModel, read_model_config
from sonarc.published.folder import export_checkpoint, import_checkpoint
from sonarc.published.weights import (
    PublishedWeights,
    build_autoencoder,
    build_dit,
    load_published,
    published_tensors,
    read_tensors,
    split,
)

__all__ = [
    "PublishedModel",
    "PublishedWeights",
    "build_autoencoder",
    "build_dit",
    "export_checkpoint",
    "import_checkpoint",
    "load_published",
    "published_tensors",
    "read_model_config",
    "read_tensors",
    "split",
]
