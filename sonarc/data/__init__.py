"""Datasets: captioned sources in, shards and latents out, batches by seed and step. No torch."""

from __future__ import annotations

from sonarc.data.batches import BatchPlan
from sonarc.data.latents import LatentSet, load_latents
from sonarc.data.reader import Clip, read_clips, read_index

__all__ = ["BatchPlan", "Clip", "LatentSet", "load_latents", "read_clips", "read_index"]
