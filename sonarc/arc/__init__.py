"""Adversarial relativistic-contrastive post-training: a flow model becomes a few-step generator."""

from __future__ import annotations

from sonarc.arc.batches import ArcData
from sonarc.arc.discriminator import Discriminator, FeatureModel
from sonarc.arc.health import Health
from sonarc.arc.negatives import Negatives, mismatch
from sonarc.arc.steps import ArcBatch, ArcDraws, StepLoss, discriminator_step, draw_arc, generator_step
from sonarc.arc.training import ArcTrainer

__all__ = [
    "ArcBatch",
    "ArcData",
    "ArcDraws",
    "ArcTrainer",
    "Discriminator",
    "FeatureModel",
    "Health",
    "Negatives",
    "StepLoss",
    "discriminator_step",
    "draw_arc",
    "generator_step",
    "mismatch",
]
