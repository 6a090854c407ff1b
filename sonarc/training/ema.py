"""Exponential moving average of a network's weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from sonarc.checkpoint.sharded import cut_like, is_sharded
from sonarc.contracts.errors import CheckpointError


class EMA:
    """`avg ← decay·avg + (1 − decay)·weights`, after every optimizer step.

    The decay grows as `(1 + n)/(10 + n)` until it reaches `decay`, so that the first weights do not linger.

    Args:
        module: the network to follow; every parameter, whatever part it belongs to.
        decay: in [0, 1].
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._module, self._decay = module, decay
        self._averages = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}

    @torch.no_grad()
    def update(self, updates: int) -> None:
        """Follow the weights after update number `updates` (from 1)."""
        decay = min(self._decay, (1 + updates) / (10 + updates))
        averages = [_own(average) for average in self._averages.values()]
        parameters = [_own(parameter.detach()) for parameter in self._module.parameters()]
        torch._foreach_lerp_(averages, parameters, 1 - decay)

    def state_dict(self) -> dict[str, Tensor]:
        """A full state dict of the averaged network: averaged parameters and the network's own buffers."""
        return {**self._module.state_dict(), **self._averages}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `state_dict` gave.

        Raises:
            CheckpointError: a parameter is missing or of another shape.
        """
        for name, average in self._averages.items():
            if name not in tensors or tensors[name].shape != average.shape:
                raise CheckpointError(f"The averaged weights do not fit the model at {name!r}.", "Start afresh.")
            average.copy_(cut_like(tensors[name], average))


def _own(tensor: Tensor) -> Tensor:
    """This worker's part of a tensor."""
    return tensor.to_local() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]
