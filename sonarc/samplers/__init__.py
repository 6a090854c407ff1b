"""Samplers: pure functions of a velocity, a schedule and a noise source."""

from __future__ import annotations

from sonarc.samplers.dpmpp import dpmpp_2m
from sonarc.samplers.euler import euler
from sonarc.samplers.guidance import with_cfg, without_cfg
from sonarc.samplers.known import Known, Start
from sonarc.samplers.noise import Noise, noise_from_seeds, seeded_noise
from sonarc.samplers.pingpong import Velocity, pingpong
from sonarc.samplers.sample import (
    BASE_SAMPLER,
    GENERATOR_SAMPLER,
    Kind,
    draws,
    sample_base,
    sample_generator,
    trajectory,
)
from sonarc.samplers.schedule import logsnr_schedule, shift_schedule, uniform_schedule

__all__ = [
    "BASE_SAMPLER",
    "GENERATOR_SAMPLER",
    "Kind",
    "Known",
    "Noise",
    "Start",
    "Velocity",
    "dpmpp_2m",
    "draws",
    "euler",
    "logsnr_schedule",
    "noise_from_seeds",
    "pingpong",
    "sample_base",
    "sample_generator",
    "seeded_noise",
    "shift_schedule",
    "trajectory",
    "uniform_schedule",
    "with_cfg",
    "without_cfg",
]
