"""Random draws that depend on (seed, step) alone.

Whoever resumes at a step, on however many workers, draws what an undisturbed run would have drawn.
"""

from __future__ import annotations

import hashlib

import torch


def step_generator(seed: int, step: int, purpose: str) -> torch.Generator:
    """A CPU generator for one purpose of one step.

    Args:
        seed: the training's seed.
        step: global step.
        purpose: a name, such as `pretrain`; draws for different purposes are independent.
    """
    digest = hashlib.sha256(f"{seed}/{step}/{purpose}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big", signed=True))
