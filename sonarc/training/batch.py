"""A batch of clips as the models train on them.

Shapes: B clips, C latent channels, T latent frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sonarc.dit.conditioning import Conditioning


@dataclass(frozen=True)
class LatentBatch:
    """Latents with what belongs to them.

    Attributes:
        x0_BCT: clean latents, float32; what lies beyond a clip's true frames is ignored.
        mask_BT: True at true frames.
        cond: prompts and true durations.
    """

    x0_BCT: Tensor
    mask_BT: Tensor
    cond: Conditioning

    def __len__(self) -> int:
        return self.x0_BCT.shape[0]

    def __getitem__(self, items: slice) -> LatentBatch:
        """Some of the clips."""
        return LatentBatch(self.x0_BCT[items], self.mask_BT[items], self.cond[items])

    def to(self, device: torch.device | str) -> LatentBatch:
        """The same batch on another device."""
        return LatentBatch(self.x0_BCT.to(device), self.mask_BT.to(device), self.cond.to(device))


def frame_mask(frames_B: Tensor, length: int) -> Tensor:
    """`mask_BT`: True at the first `frames_B` of `length` frames."""
    return torch.arange(length, device=frames_B.device) < frames_B[:, None]
