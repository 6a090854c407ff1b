"""Rectified flow: interpolation, velocity target, loss, noise levels."""

from __future__ import annotations

from sonarc.flow.noise import sample_noise_levels
from sonarc.flow.rectified import clean_estimate, drop_text, interpolate, velocity_loss, velocity_target

__all__ = [
    "clean_estimate",
    "drop_text",
    "interpolate",
    "sample_noise_levels",
    "velocity_loss",
    "velocity_target",
]
