"""A tiny DiT and batches for it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from sonarc.arc import ArcBatch, Discriminator
from sonarc.contracts.config import ArcConfig, DiTConfig, HeadConfig
from sonarc.dit import Conditioning, DiT
from sonarc.text import TextStates
from sonarc.training import LatentBatch, frame_mask

CHANNELS, FRAMES, TEXT, LENGTH = 8, 32, 16, 4


@pytest.fixture
def dit() -> DiT:
    """Two blocks, with no branch left at its zero initialisation."""
    torch.manual_seed(0)
    model = DiT(
        DiTConfig(latent_channels=CHANNELS, width=32, depth=2, heads=2, ff_mult=2, patch=2, cond_width=16), TEXT
    )
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return model


@pytest.fixture
def arc() -> ArcConfig:
    return ArcConfig(discriminator_depth=1, head=HeadConfig(stages=1, kernel=3), batch=4)


@pytest.fixture
def discriminator(dit: DiT, arc: ArcConfig) -> Discriminator:
    torch.manual_seed(1)
    return Discriminator(dit, arc.discriminator_depth, arc.head)


MakeBatch = Callable[..., ArcBatch]


@pytest.fixture
def make_batch() -> MakeBatch:
    """`make_batch(frames=[…])`: clips of these true lengths, padded to `length` frames."""

    def make(frames: list[int] | None = None, length: int = FRAMES) -> ArcBatch:
        rng = torch.Generator().manual_seed(2)
        frames_B = torch.tensor(frames or [FRAMES, FRAMES, 20, 12])
        size = len(frames_B)

        def text() -> TextStates:
            return TextStates(torch.randn(size, LENGTH, TEXT, generator=rng), torch.ones(size, LENGTH).bool())

        own, wrong = text(), text()
        x0_BCT = torch.randn(size, CHANNELS, FRAMES, generator=rng)[:, :, :length]
        real = LatentBatch(x0_BCT, frame_mask(frames_B, length), Conditioning(own, frames_B / 43))
        return ArcBatch(real, wrong, torch.ones(size).bool())

    return make
