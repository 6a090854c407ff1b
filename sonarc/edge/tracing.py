"""PyTorch modules to ONNX files, and what the files deviate by.

Torch's tracing exporter is used: its newer one needs another package, and makes the same graphs of networks without
branches. The graphs are held against PyTorch in any case.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from sonarc.contracts.errors import CheckpointError

OPSET = 17
TOLERANCE = 1e-4
"""Most that a float32 graph may deviate from PyTorch, over its output's peak."""


@dataclass(frozen=True)
class Traced:
    """A network with an example of its input.

    Attributes:
        graph: the module.
        inputs: name → example.
        output: its output's name.
        growing: input or output → its axis that may have any length, and that axis' name.
    """

    graph: nn.Module
    inputs: dict[str, Tensor]
    output: str
    growing: dict[str, dict[int, str]]

    def write(self, path: Path) -> None:
        """Write the ONNX file."""
        # What does not depend on the input is folded while tracing, and the exporter warns of each such place.
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                self.graph.eval(),
                tuple(self.inputs.values()),
                path,
                dynamo=False,
                opset_version=OPSET,
                input_names=list(self.inputs),
                output_names=[self.output],
                dynamic_axes=self.growing,
            )

    def error(self, path: Path) -> float:
        """Largest deviation of a file's output from this module's, over its peak."""
        with torch.no_grad():
            wanted = self.graph(*self.inputs.values()).numpy()
        options = onnxruntime.SessionOptions()
        options.enable_cpu_mem_arena = False
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        (found,) = session.run(None, {name: value.numpy() for name, value in self.inputs.items()})
        return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def check(name: str, error: float) -> None:
    """Refuse a float32 file that is not the network it was made from.

    Raises:
        CheckpointError: it deviates too much.
    """
    if not error <= TOLERANCE:  # NaN is refused, too
        raise CheckpointError(
            f"The exported {name} deviates from PyTorch by {error:.2g} of its peak, more than {TOLERANCE:g}.",
            "Do the package's weights hold ordinary numbers?",
        )
