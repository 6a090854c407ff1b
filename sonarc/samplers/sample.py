"""From prompts and seeds to latents: the schedule and sampler that belong to each kind of model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from sonarc.contracts.errors import ModelInputError
from sonarc.dit import Conditioning
from sonarc.samplers.dpmpp import dpmpp_2m
from sonarc.samplers.guidance import Model, with_cfg, without_cfg
from sonarc.samplers.known import Known, Start
from sonarc.samplers.noise import Noise, seeded_noise
from sonarc.samplers.pingpong import Velocity, pingpong
from sonarc.samplers.schedule import check_steps, logsnr_schedule, uniform_schedule

GENERATOR_SAMPLER = "pingpong"
BASE_SAMPLER = "dpmpp_2m"

Kind = Literal["generator", "base"]


def draws(kind: Kind, steps: int) -> int:
    """Draws of noise that `trajectory` asks for: 0, 1, … of a generator, 0 alone of a base.

    Raises:
        ModelInputError: no steps.
    """
    check_steps(steps)
    return steps if kind == "generator" else 1


def trajectory(kind: Kind, velocity: Velocity, noise: Noise, *, steps: int, start: Start | None = None) -> Tensor:
    """Latents `(B, C, T)`: a generator's by ping-pong, a base's by DPM-Solver++(2M), each with its own schedule.

    Args:
        kind: whose velocity it is.
        velocity: the model's, guided or edited where that is wanted.
        noise: the items' draws.
        steps: network evaluations.
        start: latents to begin from instead of pure noise.

    Raises:
        ModelInputError: no steps, or given latents of another shape than the noise.
    """
    x_BCT, level = (noise(0), 1.0) if start is None else (start.at(noise(0)), start.noise)
    if kind == "generator":
        return pingpong(velocity, x_BCT, logsnr_schedule(steps, start=level), noise)
    return dpmpp_2m(velocity, x_BCT, uniform_schedule(steps, start=level))


@torch.no_grad()
def sample_generator(
    model: Model,
    cond: Conditioning,
    seeds: Sequence[int],
    mask_BT: Tensor,
    *,
    steps: int,
    start: Start | None = None,
    known: Known | None = None,
    channels: int = 64,
) -> Tensor:
    """Latents `(B, C, T)` of an ARC generator: ping-pong, no guidance.

    Args:
        model: the velocity model.
        cond: prompts and durations, on the model's device.
        seeds: one an item; the item's noise depends on nothing else.
        mask_BT: True on true frames; what comes out beyond them means nothing.
        steps: network evaluations.
        start: latents to begin from instead of pure noise.
        known: frames to keep.
        channels: latent channels C.

    Raises:
        ModelInputError: no steps, another number of seeds than prompts, or given latents that do not fit.
    """
    noise = _noise(cond, seeds, mask_BT, channels)
    velocity = _edited(without_cfg(model, cond, mask_BT), known)
    return trajectory("generator", velocity, noise, steps=steps, start=start)


@torch.no_grad()
def sample_base(
    model: Model,
    cond: Conditioning,
    seeds: Sequence[int],
    mask_BT: Tensor,
    *,
    steps: int,
    cfg: float,
    negative: Conditioning | None = None,
    start: Start | None = None,
    known: Known | None = None,
    channels: int = 64,
) -> Tensor:
    """Latents `(B, C, T)` of a base model: DPM-Solver++(2M) with guidance. Arguments as `sample_generator`.

    Args:
        cfg: guidance scale; 1 is none.
        negative: what to move away from instead of the null text.
    """
    noise = _noise(cond, seeds, mask_BT, channels)
    velocity = _edited(with_cfg(model, cond, cfg, negative=negative, mask_BT=mask_BT), known)
    return trajectory("base", velocity, noise, steps=steps, start=start)


def _edited(velocity: Velocity, known: Known | None) -> Velocity:
    return velocity if known is None else known.guide(velocity)


def _noise(cond: Conditioning, seeds: Sequence[int], mask_BT: Tensor, channels: int) -> Noise:
    if len(seeds) != len(cond):
        raise ModelInputError(f"{len(seeds)} seeds came with {len(cond)} prompts.", "Give one seed a prompt.")
    return seeded_noise(seeds, (channels, mask_BT.shape[1]), mask_BT.device)
