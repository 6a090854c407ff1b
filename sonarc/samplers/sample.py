"""From prompts and seeds to latents: the schedule and sampler that belong to each kind of model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sonarc.contracts.errors import ModelInputError
from sonarc.dit import Conditioning
from sonarc.samplers.dpmpp import dpmpp_2m
from sonarc.samplers.guidance import Model, with_cfg, without_cfg
from sonarc.samplers.noise import Noise, seeded_noise
from sonarc.samplers.pingpong import pingpong
from sonarc.samplers.schedule import logsnr_schedule, uniform_schedule

GENERATOR_SAMPLER = "pingpong"
BASE_SAMPLER = "dpmpp_2m"


@torch.no_grad()
def sample_generator(
    model: Model, cond: Conditioning, seeds: Sequence[int], mask_BT: Tensor, *, steps: int, channels: int = 64
) -> Tensor:
    """Latents `(B, C, T)` of an ARC generator: ping-pong, no guidance.

    Args:
        model: the velocity model.
        cond: prompts and durations, on the model's device.
        seeds: one an item; the item's noise depends on nothing else.
        mask_BT: True on true frames; what comes out beyond them means nothing.
        steps: network evaluations.
        channels: latent channels C.

    Raises:
        ModelInputError: no steps, or another number of seeds than prompts.
    """
    noise = _noise(cond, seeds, mask_BT, channels)
    return pingpong(without_cfg(model, cond, mask_BT), noise(0), logsnr_schedule(steps), noise)


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
    channels: int = 64,
) -> Tensor:
    """Latents `(B, C, T)` of a base model: DPM-Solver++(2M) with guidance. Arguments as `sample_generator`.

    Args:
        cfg: guidance scale; 1 is none.
        negative: what to move away from instead of the null text.
    """
    noise = _noise(cond, seeds, mask_BT, channels)
    velocity = with_cfg(model, cond, cfg, negative=negative, mask_BT=mask_BT)
    return dpmpp_2m(velocity, noise(0), uniform_schedule(steps))


def _noise(cond: Conditioning, seeds: Sequence[int], mask_BT: Tensor, channels: int) -> Noise:
    if len(seeds) != len(cond):
        raise ModelInputError(f"{len(seeds)} seeds came with {len(cond)} prompts.", "Give one seed a prompt.")
    return seeded_noise(seeds, (channels, mask_BT.shape[1]), mask_BT.device)
