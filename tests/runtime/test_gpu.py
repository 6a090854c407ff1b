"""A GPU is used where there is one. Where there is none, one is pretended that knows shapes and devices, not values."""

from __future__ import annotations

from collections.abc import Sequence
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
from sonarc.samplers import Known, Start
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
        clip_samples=samples, silence=lambda: silence_C, **more,  # type: ignore[arg-type]
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
        base, generator = Sampling("base", 2, 4.0, precision), Sampling("generator", 2, precision=precision)
        for _ in range(2):  # as it is, then captured and replayed
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


def test_an_edit_is_prepared_where_the_model_is(monkeypatch: pytest.MonkeyPatch) -> None:
    sound_AS = np.zeros((2, 9), np.float32)
    with pretended_gpu(monkeypatch) as device:
        codec = tiny("default", device).codec
        # What was given is looked at once, before the first step: here nothing can be.
        monkeypatch.setattr(torch, "from_numpy", lambda array: torch.zeros(array.shape))
        for checked in (Start, Known):
            monkeypatch.setattr(checked, "__post_init__", lambda self: None)
        start, known = Edit(sound_AS, 0.5, (0.0, 0.1)).prepare(codec, torch.ones(2, 4, device=device).bool())
    assert start is not None and known is not None
    assert start.latents_BCT.device == known.latents_BCT.device == known.keep_BT.device == device


@pytest.mark.parametrize("asked", ["cuda:7", "mps", "the fast one"])
def test_a_device_that_is_not_there_is_refused(asked: str) -> None:
    with pytest.raises(ConfigError, match=asked):
        best_device(asked)


@pytest.mark.skipif(HAS_GPU, reason="there is a CUDA device here")
def test_without_a_gpu_it_is_the_cpu_and_a_wish_for_one_is_refused() -> None:
    assert best_device() == best_device("cpu") == torch.device("cpu")
    with pytest.raises(ConfigError, match="finds 0 CUDA devices"):
        best_device("cuda")


def test_with_gpus_it_is_the_current_one_and_each_has_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"is_available": True, "device_count": 2, "current_device": 1}.items():
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
    assert best_device() == best_device("cuda") == torch.device("cuda:1")
    assert best_device("cuda:0") == torch.device("cuda:0")
    assert best_device("cpu") == torch.device("cpu")


def noise_db(found_AS: np.ndarray, wanted_AS: np.ndarray) -> float:
    return float(10 * np.log10(np.square(found_AS - wanted_AS).sum() / np.square(wanted_AS).sum()))


@on_gpu
@pytest.mark.parametrize(("precision", "limit"), [("float32", -50.0), ("bfloat16", -20.0)])
@pytest.mark.parametrize("kind", ["generator", "base"])
def test_a_seed_sounds_the_same_on_both(kind: str, precision: str, limit: float, tmp_path: Path) -> None:
    location = make_package(tmp_path, kind=kind)[0]  # type: ignore[arg-type]
    cpu, gpu = Generator.load(location, device="cpu"), Generator.load(location)
    assert gpu.device.type == "cuda"
    guided = {"guidance": 3.0} if kind == "base" else {}
    for more in ({}, {"before_step": lambda: None}, {"edit": Edit(np.ones((2, 9_000), np.float32) / 9, 0.8)}):
        for turn in range(3):  # as it is, captured, and replayed with another prompt
            asked = ([f"a bell, take {turn}", "a drum"], [0.5, 0.4], [turn, 7])
            found, wanted = (g.generate(*asked, precision=precision, **guided, **more) for g in (gpu, cpu))  # type: ignore[arg-type]
            assert max(map(noise_db, found, wanted)) < limit


@on_gpu
def test_on_a_gpu_every_shape_is_captured_and_no_warning_is_given(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gpu = Generator.load(make_package(tmp_path)[0])
    gpu.warm_up()
    (first,), (second,) = (gpu.generate(["a bell"], [0.5], [3]) for _ in range(2))
    (third,) = gpu.generate(["a bell"], [0.5], [3])
    assert noise_db(first, second) < -40 and np.array_equal(second, third)
    assert not [record for record in caplog.records if "CUDA graph" in record.getMessage()]


@on_gpu
def test_the_published_decoder_is_the_same_on_both() -> None:
    pytest.importorskip("diffusers")
    torch.manual_seed(0)
    networks = tiny("published", torch.device("cpu"))
    z_BCT = torch.randn(2, networks.codec.latent_channels, 40)
    wanted = networks.codec.decode(z_BCT)
    assert isinstance(networks.model, DiT) and isinstance(networks.codec, OobleckCodec)
    fast = Networks(networks.model.cuda(), networks.codec.cuda()).fast().codec
    for _ in range(3):
        found = fast.decode(z_BCT.cuda()).cpu()
        assert float((found - wanted).norm() / wanted.norm()) < 0.03
