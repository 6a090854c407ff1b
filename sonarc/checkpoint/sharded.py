"""Between tensors sharded over workers (FSDP's) and the whole ones that checkpoints hold."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


def is_sharded(tensor: Tensor) -> bool:
    """Whether a tensor is one worker's shard. (To import DTensor costs seconds, which unsharded uses need not pay.)"""
    return hasattr(tensor, "device_mesh")


def cut_like(whole: Tensor, reference: Tensor) -> Tensor:
    """A whole tensor that every worker holds, cut as `reference` is; itself where that is not sharded."""
    if not is_sharded(reference):
        return whole
    from torch.distributed.tensor import distribute_tensor

    mesh = reference.device_mesh  # type: ignore[attr-defined]
    # Every worker takes its own part: nothing is sent.
    return distribute_tensor(whole.to(reference.device), mesh, reference.placements, src_data_rank=None)  # type: ignore[attr-defined]


def gathered(tensors: Mapping[str, Tensor], *, keep: bool) -> dict[str, Tensor]:
    """Whole tensors of shards, one after the other; every worker must call it.

    Args:
        keep: whether this worker wants them; the others get none.
    """
    found = {}
    for name in sorted(tensors):  # state read from a file comes in another order on every worker
        tensor = tensors[name]
        whole = tensor.full_tensor().cpu() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]
        if keep:
            found[name] = whole
    return found
