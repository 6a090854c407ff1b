"""A GPU is used where there is one. Where there is none, one is pretended that knows shapes and devices, not values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from cuda_graphs import RecordedGraph, graphs, pretended_gpu
from tiny_package import make_package
from torch import Tensor

from sonarc.codec.config import OobleckCodecConfig, SpectralCodecConfig
from sonarc.codec.oobleck import OobleckCodec
from sonarc.codec.spectral import SpectralCodec
from sonarc.contracts.config import DiTConfig
from sonarc.contracts.errors import ConfigError
from sonarc.dit import DiT
from sonarc.runtime import fast_oobleck, snake
from sonarc.runtime.device import best_device, device_of
from sonarc.runtime.edit import Edit
from sonarc.runtime.generate import Sampling, generate_audio, silence_latent
from sonarc.runtime.generator import Generator
from sonarc.runtime.graphed import GraphedCodec, GraphedDiT
from sonarc.runtime.networks import Networks
from sonarc.text import TextStates

__all__ = ["graphs"]

HAS_GPU = torch.cuda.is_available()
on_gpu = pytest.mark.skipif(not HAS_GPU, reason="no CUDA device here")
SPECTRAL = SpectralCodecConfig(dim=32, encoder_blocks=1, decoder_blocks=1, fine_blocks=1)
OOBLECK = OobleckCodecConfig(latent_channels=64, encoder_width=128, decoder_width=16, multiples=(1, 2), strides=(2, 4))
DIT = DiTConfig(width=64, depth=1, heads=2, patch=2, cond_width=16)
PUBLISHED = DIT.model_copy(update={"patch": 1, "global_cond": "prepend"})
CLIP_FRAMES = 16


class Reader:
    """A text encoder: its states are on the CPU, wherever the model is."""

    name, sha256, width, max_tokens = "reader", "0", 24, 6

    def __call__(self, prompts: Sequence[str]) -> TextStates:
        ones = torch.ones(len(prompts), self.max_tokens)
        return TextStates(ones[..., None].expand(-1, -1, self.width).contiguous(), ones.bool())


Ask = Callable[..., list[np.ndarray]]


def tiny(kind: str, device: torch.device) -> Networks:
    """Networks of the default kind or of the published one, made on a device."""
    if kind == "published":
        pytest.importorskip("diffusers")
    with device:
        codec = OobleckCodec(OOBLECK) if kind == "published" else SpectralCodec(SPECTRAL)
        model = DiT(PUBLISHED if kind == "published" else DIT, Reader.width)
    return Networks(model.eval().requires_grad_(False), codec.eval().requires_grad_(False))


def ask(networks: Networks, silence_C: Tensor, sampling: Sampling, lengths: Sequence[float], **more: object) -> None:
    """Clips of so many parts of a whole one."""
    codec, batch = networks.codec, len(lengths)
    samples = CLIP_FRAMES * codec.hop
    seconds = [length * samples / codec.sample_rate for length in lengths]
    clips = generate_audio(
        networks.model, codec, Reader(), ["a bell"] * batch, seconds, range(batch), sampling,
        clip_samples=samples, silence_C=silence_C, **more,  # type: ignore[arg-type]
    )  # fmt: skip
    assert [clip.shape for clip in clips] == [(2, round(length * samples)) for length in lengths]


@pytest.mark.parametrize("kind", ["default", "published"])
@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_from_text_to_samples_everything_is_on_the_gpu_and_nothing_is_read_back(
    kind: str, precision: str, monkeypatch: pytest.MonkeyPatch, graphs: list[RecordedGraph]
) -> None:
    monkeypatch.setattr(fast_oobleck, "snake_kernel", lambda device: snake._polynomial)
    with pretended_gpu(monkeypatch) as device:
        exact = tiny(kind, device)
        networks = exact if precision == "float32" else exact.fast()
        assert device_of(networks.model) == device_of(networks.codec) == device
        silence_C = silence_latent(networks.codec)
        assert silence_C.device == device
        # Samples are the one thing that comes back, and what is pretended has none.
        came_back: list[torch.device] = []
        monkeypatch.setattr(Tensor, "numpy", lambda x: came_back.append(x.device) or np.zeros(x.shape, np.float32))
        # A mask and given audio are looked at once a request, before the first step; so is a mask in float32.
        base, generator = Sampling("base", 3, 4.0, precision), Sampling("generator", 3, precision=precision)
        for _ in range(3):
            for sampling in (base, generator):
                ask(networks, silence_C, sampling, [1.0])
                ask(networks, silence_C, sampling, [0.5, 0.5], before_step=lambda: None)
                if precision == "bfloat16":
                    ask(networks, silence_C, sampling, [1.0, 0.5])
        assert set(came_back) == {torch.device("cpu")}
    if precision == "float32":
        assert not graphs
    else:
        assert isinstance(networks.model, GraphedDiT) and isinstance(networks.codec, GraphedCodec)
        assert min(graph.replays for graph in graphs) > 0
