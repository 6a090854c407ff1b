"""A traced DiT is PyTorch's, whatever its attention looks at and however long the clip is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch

from sonarc.contracts.config import DiTConfig
from sonarc.contracts.errors import CheckpointError
from sonarc.dit import DiT
from sonarc.edge.graphs import StepGraph
from sonarc.edge.tracing import TOLERANCE, Traced, check


@pytest.mark.parametrize("global_cond", ["adaln", "prepend"])
def test_positions_and_every_length_are_kept(global_cond: Literal["adaln", "prepend"], tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = DiT(DiTConfig(width=64, depth=2, heads=2, patch=2, cond_width=32, global_cond=global_cond), 16)
    for name, parameter in model.named_parameters():
        if "norm" not in name:  # norms of 1 leave queries and keys long: attention is sharp, so positions matter
            torch.nn.init.normal_(parameter, std=0.3)
    inputs = {
        "latents": torch.randn(1, 64, 24),
        "level": torch.tensor([0.7]),
        "text": torch.randn(1, 5, 16),
        "mask": torch.arange(5)[None] < 5,
        "seconds": torch.tensor([2.0]),
    }
    growing = {"latents": {2: "frames"}, "velocity": {2: "frames"}}
    traced = Traced(StepGraph(model.requires_grad_(False)), inputs, "velocity", growing)
    traced.write(tmp_path / "dit.onnx")
    for frames in (24, 2, 60):
        longer = replace(traced, inputs=inputs | {"latents": torch.randn(1, 64, frames)})
        assert longer.error(tmp_path / "dit.onnx") < 1e-5


@pytest.mark.parametrize("error", [2 * TOLERANCE, float("nan")])
def test_a_graph_that_deviates_is_refused(error: float) -> None:
    check("dit", TOLERANCE)
    with pytest.raises(CheckpointError, match="exported dit deviates"):
        check("dit", error)
