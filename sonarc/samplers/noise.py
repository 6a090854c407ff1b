"""Noise that belongs to an item, not to a batch.

The noise of an item is a pure function of (seed, draw, channel, frame). Whatever else is in the batch,
however far the batch is padded and on whatever device it is sampled, a seed gives the same sound.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from sonarc.contracts.errors import ModelInputError

Noise = Callable[[int], Tensor]
"""`noise(draw) -> (B, C, T)`: draw 0 starts the trajectory, draw i re-noises after step i."""

_BLOCK = 16
"""Torch's normal generator fills blocks of 16 values: whole blocks make shorter draws prefixes of longer ones."""


def noise_from_seeds(seeds: Sequence[int], shape: tuple[int, int], draw: int = 0) -> Tensor:
    """Standard normal noise `(B, C, T)` float32, each item from its own seed.

    Args:
        seeds: one non-negative integer an item.
        shape: `(C, T)`. A shorter T gives the first frames of a longer one.
        draw: which of the item's independent draws.

    Raises:
        ModelInputError: a negative seed.
    """
    for seed in seeds:
        if seed < 0:
            raise ModelInputError(f"The seed is {seed}.", "Use an integer from 0 up.")
    channels, frames = shape
    return torch.stack([_normal(seed, draw, channels, frames) for seed in seeds])


def seeded_noise(seeds: Sequence[int], shape: tuple[int, int], device: torch.device | str = "cpu") -> Noise:
    """`noise_from_seeds` as the noise function that a sampler takes."""
    return lambda draw: noise_from_seeds(seeds, shape, draw).to(device)


def _normal(seed: int, draw: int, channels: int, frames: int) -> Tensor:
    state = np.random.SeedSequence([seed, draw]).generate_state(1, np.uint64)[0]
    generator = torch.Generator().manual_seed(int(state))
    row = -(-channels // _BLOCK) * _BLOCK
    return torch.randn(frames, row, generator=generator)[:, :channels].T.contiguous()
