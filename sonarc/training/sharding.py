"""FSDP2: weights, gradients, averages and optimizer state cut into as many parts as there are workers.

A block's weights are whole on a worker only while it computes; those outside the blocks from the first use to the end
of a pass.
"""

from __future__ import annotations

import warnings

import torch
from torch import nn

from sonarc.dit.transformer import Block


def shard(module: nn.Module, device: torch.device, workers: int) -> None:
    """Cut `module` in place, block by block, each moved to the device by itself; optimizers are made afterwards.

    Args:
        module: alike on every worker.
        device: the worker's.
        workers: how many there are; torch's process group holds them.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    # What our modules return is a view, which nobody changes in place.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    mesh = init_device_mesh(device.type, (workers,))
    for part in [*(part for part in module.modules() if isinstance(part, Block)), module]:
        fully_shard(part, mesh=mesh, reshard_after_forward=True)
