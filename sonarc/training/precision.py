"""bfloat16 where it is safe."""

from __future__ import annotations

import torch


def autocast(device: torch.device | str) -> torch.autocast:
    """Matrix products in bfloat16; weights, losses and optimizer state stay float32."""
    return torch.autocast(torch.device(device).type, dtype=torch.bfloat16)
