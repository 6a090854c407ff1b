"""Checkpoints: weights, training state and their manifest, in safetensors and JSON only."""

from __future__ import annotations

from sonarc.checkpoint.folder import (
    Checkpoint,
    ModelSections,
    claim_attempt,
    dit_of,
    load_checkpoint,
    load_dit,
    prune_checkpoints,
    resume_point,
    save_checkpoint,
    sections,
)
from sonarc.checkpoint.sharded import gathered
from sonarc.checkpoint.state import load_optimizer, load_tensors, optimizer_tensors, pack_rng, restore_rng

__all__ = [
    "Checkpoint",
    "ModelSections",
    "claim_attempt",
    "dit_of",
    "gathered",
    "load_checkpoint",
    "load_dit",
    "load_optimizer",
    "load_tensors",
    "optimizer_tensors",
    "pack_rng",
    "prune_checkpoints",
    "restore_rng",
    "resume_point",
    "save_checkpoint",
    "sections",
]
