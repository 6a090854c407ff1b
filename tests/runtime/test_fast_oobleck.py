"""The published decoder's fast form gives the same audio, at portions' seams and at both ends too."""

from __future__ import annotations

import pytest
import torch

from sonarc.codec import Codec
from sonarc.codec.config import OobleckCodecConfig
from sonarc.codec.oobleck import OobleckCodec
from sonarc.contracts.config import DiTConfig
from sonarc.contracts.errors import ModelInputError
from sonarc.dit import DiT
from sonarc.runtime import fast_oobleck, packed, snake
from sonarc.runtime.fast_oobleck import FastOobleck
from sonarc.runtime.networks import Networks

pytest.importorskip("diffusers")

TINY = OobleckCodecConfig(latent_channels=4, encoder_width=8, decoder_width=32, multiples=(1, 2), strides=(2, 4))


@pytest.fixture(scope="module")
def codec() -> OobleckCodec:
    """A decoder whose activations all have frequencies and weights of their own."""
    torch.manual_seed(0)
    codec = OobleckCodec(TINY).eval().requires_grad_(False)
    for name, parameter in codec.named_parameters():
        if name.endswith(("alpha", "beta")):
            parameter.normal_(0, 0.3)
    return codec


@pytest.fixture(autouse=True)
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiler takes seconds, and has a test of its own."""
    monkeypatch.setattr(fast_oobleck, "snake_kernel", lambda device: snake._polynomial)


@pytest.mark.parametrize("portion", [40, 64, 8_192])
def test_it_decodes_as_the_codec_does(codec: OobleckCodec, portion: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_oobleck, "PORTION", portion)
    z_BCT = torch.randn(2, 4, 37, generator=torch.Generator().manual_seed(1))
    fast, wanted = FastOobleck(codec), codec.decode(z_BCT)
    found = fast.decode(z_BCT)
    assert found.shape == wanted.shape and found.dtype == torch.float32
    noise = (found - wanted).square().mean(1).sqrt() / wanted.square().mean().sqrt()
    assert float(noise.mean()) < 0.01, "bfloat16 rounds so much"
    assert float(noise.max()) < 0.08, "a seam or an end would stand out"


def test_portions_change_nothing(codec: OobleckCodec, monkeypatch: pytest.MonkeyPatch) -> None:
    z_BCT = torch.randn(1, 4, 37, generator=torch.Generator().manual_seed(2))
    whole = FastOobleck(codec).decode(z_BCT)
    monkeypatch.setattr(fast_oobleck, "PORTION", 40)
    assert float((FastOobleck(codec).decode(z_BCT) - whole).abs().max()) <= 2**-7 * float(whole.abs().max())


def test_without_onednn_it_is_the_same(codec: OobleckCodec, monkeypatch: pytest.MonkeyPatch) -> None:
    z_BCT = torch.randn(1, 4, 9, generator=torch.Generator().manual_seed(3))
    wanted = FastOobleck(codec).decode(z_BCT)
    monkeypatch.setattr(packed, "can_pack", lambda: False)
    found = FastOobleck(codec).decode(z_BCT)
    assert float((found - wanted).norm() / wanted.norm()) < 0.02


def test_it_is_a_codec_of_the_same_name(codec: OobleckCodec) -> None:
    fast = FastOobleck(codec)
    assert isinstance(fast, Codec)
    assert (fast.sha256, fast.hop, fast.frames(17)) == (codec.sha256, codec.hop, codec.frames(17))
    with pytest.raises(ModelInputError, match=r"\(1, 5, 3\)"):
        fast.decode(torch.zeros(1, 5, 3))


def test_a_decoder_of_odd_strides_stays_as_it_is(codec: OobleckCodec) -> None:
    model = DiT(DiTConfig(latent_channels=4, width=64, depth=1, heads=2, patch=1, cond_width=16), 24)
    odd = OobleckCodec(TINY.model_copy(update={"strides": (2, 3)}))
    assert Networks(model, odd).fast().codec is odd
    assert isinstance(Networks(model, codec).fast().codec, FastOobleck)


def snake_of(x: torch.Tensor, alpha_C: torch.Tensor, beta_C: torch.Tensor) -> torch.Tensor:
    return x.double() + torch.sin(alpha_C.exp() * x.double()).square() / (beta_C.exp() + 1e-9)


@pytest.mark.parametrize("kernel", [snake._polynomial, snake._passes])
def test_snake_is_what_its_paper_says(kernel: snake.Kernel) -> None:
    torch.manual_seed(0)
    alpha_C, beta_C = torch.randn(16), torch.randn(16)
    x_SC = (torch.randn(500, 16) * 3).to(torch.bfloat16)
    wanted = snake_of(x_SC, alpha_C, beta_C)
    found = snake.Snake(alpha_C, beta_C, kernel)(x_SC)
    assert found.dtype == torch.bfloat16
    assert float((found - wanted).norm() / wanted.norm()) < (0.004 if kernel is snake._polynomial else 0.03)


@pytest.mark.slow
def test_the_compiled_kernel_is_the_same() -> None:
    torch.manual_seed(0)
    kernel, args = snake.snake_kernel(torch.device("cpu")), (torch.randn(16), torch.randn(16))
    assert kernel is not snake._passes, "no C++ compiler"
    for samples in (1, 77, 4_096):
        x_SC = torch.randn(samples, 16).to(torch.bfloat16)
        wanted = snake.Snake(*args, snake._polynomial)(x_SC)
        torch.testing.assert_close(snake.Snake(*args, kernel)(x_SC), wanted, rtol=0.01, atol=0.01)


def test_without_a_compiler_it_says_so(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def compiling(*args: object, **kwargs: object) -> object:
        def fails(*tensors: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("no g++")

        return fails

    monkeypatch.setattr(torch, "compile", compiling)
    assert snake.snake_kernel(torch.device("cpu")) is snake._passes
    assert "no g++" in caplog.text and "Install a C++ compiler" in caplog.text
