"""Where a model runs: a GPU where there is one, else the CPU."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from sonarc.contracts.errors import ConfigError

CPU = torch.device("cpu")


@runtime_checkable
class Placed(Protocol):
    """What knows its own device."""

    @property
    def device(self) -> torch.device:
        """Where its weights lie, and its inputs must."""


def best_device(asked: torch.device | str | None = None) -> torch.device:
    """The device that was asked for, with its number; without a wish, the first GPU that PyTorch can use, or the CPU.

    Raises:
        ConfigError: it is neither a CPU nor a CUDA device, or is not there.
    """
    if asked is None:
        asked = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(asked)
    except RuntimeError as error:
        raise ConfigError(f"There is no device {asked!r}.", "Use cpu, cuda or cuda:0.") from error
    if device.type == "cpu":
        return CPU
    if device.type != "cuda":
        raise ConfigError(f"Sounds are made on cpu or cuda, not on {asked}.", "Leave the device away, or use cpu.")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (device.index or 0) >= count:
        raise ConfigError(
            f"There is no device {asked} here: PyTorch {torch.__version__} finds {count} CUDA devices.",
            "Leave the device away, or install the driver and a PyTorch built for CUDA.",
        )
    return torch.device("cuda", torch.cuda.current_device() if device.index is None else device.index)


def device_of(network: Any) -> torch.device:
    """Where a network's weights lie."""
    if isinstance(network, nn.Module):
        return next(network.parameters()).device
    return network.device if isinstance(network, Placed) else CPU


def wait(device: torch.device) -> None:
    """Return when the device has done what it was given: a GPU's work is only queued."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
