"""What pre-training and post-training share: optimizers, moving averages, reproducible draws. No Ray."""

from __future__ import annotations

from sonarc.training.batch import LatentBatch, frame_mask
from sonarc.training.draws import step_generator
from sonarc.training.ema import EMA
from sonarc.training.optimizer import DivergedError, adamw, clip_gradients, cosine, linear_warmup, set_rate
from sonarc.training.precision import autocast

__all__ = [
    "EMA",
    "DivergedError",
    "LatentBatch",
    "adamw",
    "autocast",
    "clip_gradients",
    "cosine",
    "frame_mask",
    "linear_warmup",
    "set_rate",
    "step_generator",
]
