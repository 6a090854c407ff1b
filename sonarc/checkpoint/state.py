"""Training state as plain named tensors: optimizers and random generators without pickle."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from sonarc.checkpoint.sharded import cut_like
from sonarc.contracts.errors import CheckpointError

RNG_KEY = "torch"


def load_tensors(module: nn.Module, tensors: Mapping[str, Tensor], *, what: str = "model", take: bool = False) -> None:
    """Load a state dict; every key must be there, be expected, and have the right shape.

    Args:
        what: the module's name in messages.
        take: the tensors themselves become the weights, in place of copies.

    Raises:
        CheckpointError: missing, unexpected or mis-shaped keys, all listed.
    """
    own = module.state_dict()
    problems = [f"missing {name}" for name in sorted(own.keys() - tensors.keys())]
    problems += [f"unexpected {name}" for name in sorted(tensors.keys() - own.keys())]
    problems += [
        f"{name} is {tuple(tensors[name].shape)}, not {tuple(own[name].shape)}"
        for name in sorted(own.keys() & tensors.keys())
        if tensors[name].shape != own[name].shape
    ]
    if problems:
        raise CheckpointError(
            f"The weights do not fit the {what}: {'; '.join(problems)}.", "Load them with the configuration they had."
        )
    if take:
        found = {name: tensors[name].to(value.dtype) for name, value in own.items()}
    else:
        found = {name: cut_like(tensors[name], value) for name, value in own.items()}
    module.load_state_dict(found, strict=True, assign=take)


def optimizer_tensors(optimizer: torch.optim.Optimizer, names: Iterable[str]) -> dict[str, Tensor]:
    """An optimizer's per-parameter state, as `<parameter>/<slot>` → tensor.

    Hyper-parameters (rates, betas) are settings, not state: they come from the configuration.

    Args:
        optimizer: its parameters in the order of `names`.
        names: the parameters' names, in the order they were given to the optimizer.
    """
    named = list(names)
    return {
        f"{named[index]}/{slot}": value.detach()
        for index, slots in optimizer.state_dict()["state"].items()
        for slot, value in slots.items()
    }


def load_optimizer(optimizer: torch.optim.Optimizer, names: Iterable[str], tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` took.

    Raises:
        CheckpointError: state of parameters the optimizer does not have.
    """
    named = list(names)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    position = {name: index for index, name in enumerate(named)}
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        name, _, slot = key.rpartition("/")
        if name not in position:
            raise CheckpointError(f"The optimizer state holds {name!r}, which is no parameter here.", "Start afresh.")
        parameter = parameters[position[name]]
        state.setdefault(position[name], {})[slot] = cut_like(value, parameter) if value.ndim else value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def pack_rng(generator: torch.Generator | None = None) -> dict[str, Tensor]:
    """The state of a generator (None: torch's default one) as uint8 tensors."""
    return {RNG_KEY: generator.get_state() if generator is not None else torch.get_rng_state()}


def restore_rng(tensors: Mapping[str, Tensor], generator: torch.Generator | None = None) -> None:
    """Put back what `pack_rng` took.

    Raises:
        CheckpointError: it is no generator's state.
    """
    try:
        state = tensors[RNG_KEY]
        if generator is not None:
            generator.set_state(state)
        else:
            torch.set_rng_state(state)
    except (KeyError, RuntimeError, TypeError) as error:
        raise CheckpointError(f"The stored random state is not usable: {error}.", "Start afresh.") from error
