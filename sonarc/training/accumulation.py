"""Gradient accumulation: a worker's part of a batch in micro batches, whose gradients add up to the whole batch's.

Every loss is divided by what belongs to the whole batch, never to the micro batch at hand: the sum over micro batches
and the mean over workers are then the loss of the whole batch, however it is cut.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


def micro_batches(batch: int, workers: int, micro_batch: int | None) -> int:
    """How many micro batches each worker's part is cut into: on every worker as many, as sharded ones wait for each
    other in each.

    Args:
        batch: clips of the whole batch; workers' parts differ by one clip at most.
        workers: how many share it; at most `batch`.
        micro_batch: clips in memory at once on each worker; None: its whole part. Only where 1 does not divide evenly
            does a micro batch hold two.
    """
    if micro_batch is None:
        return 1
    largest, smallest = -(-batch // workers), batch // workers
    return min(-(-largest // micro_batch), smallest)


def cut(clips: int, pieces: int) -> list[slice]:
    """`clips` in contiguous pieces whose sizes differ by at most one."""
    return [slice(clips * n // pieces, clips * (n + 1) // pieces) for n in range(pieces)]


def synchronized(module: nn.Module, last: bool) -> AbstractContextManager[None]:
    """Forward and backward pass of a micro batch: workers exchange gradients in the last one only.

    Args:
        module: as a worker wrapped it.
        last: whether it is a batch's last micro batch.
    """
    if isinstance(module, DistributedDataParallel):
        return nullcontext() if last else module.no_sync()
    if hasattr(module, "set_requires_gradient_sync"):  # FSDP's
        module.set_requires_gradient_sync(last)  # type: ignore[operator]
    return nullcontext()


def add(total: dict[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Add a micro batch's figures to those of the ones before."""
    for name, value in found.items():
        total[name] = total[name] + value if name in total else value
