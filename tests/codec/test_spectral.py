"""The spectral codec: lengths, determinism, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from sonarc.codec import stft
from sonarc.codec.config import CodecTrainConfig, SpectralCodecConfig
from sonarc.codec.interface import Codec
from sonarc.codec.spectral import SpectralCodec, Spectrum
from sonarc.codec.stft import absolute
from sonarc.contracts.errors import ModelInputError

TINY = SpectralCodecConfig(
    latent_channels=4, n_fft=256, stft_hop=64, phase_bins=32, dim=16, encoder_blocks=1, decoder_blocks=1, fine_blocks=1
)


def tiny_codec(config: SpectralCodecConfig = TINY) -> SpectralCodec:
    torch.manual_seed(0)
    return SpectralCodec(config).eval()


@pytest.mark.parametrize(("samples", "frames"), [(128, 1), (1280, 10), (1281, 11), (100, 1)])
def test_lengths_are_exact(samples: int, frames: int) -> None:
    codec = tiny_codec()
    z_BCT = codec.encode(torch.randn(2, 2, samples))
    assert z_BCT.shape == (2, 4, frames) and codec.frames(samples) == frames
    assert codec.decode(z_BCT).shape == (2, 2, frames * codec.hop)


def test_default_shape_is_the_documented_one() -> None:
    config = SpectralCodecConfig()
    assert (config.hop, config.latent_channels, config.sample_rate) == (1024, 64, 44_100)
    with torch.device("meta"):
        parameters = sum(p.numel() for p in SpectralCodec(config).parameters())
    assert parameters * 2 <= 30e6  # bytes in float16


def test_patched_frames_keep_the_lengths() -> None:
    codec = tiny_codec(TINY.model_copy(update={"patch": 2, "stft_hop": 32}))
    assert codec.decode(codec.encode(torch.randn(1, 2, 640))).shape == (1, 2, 640)


def test_it_is_a_codec_and_encodes_deterministically() -> None:
    codec = tiny_codec()
    assert isinstance(codec, Codec)
    audio = torch.randn(1, 2, 1280)
    assert torch.equal(codec.encode(audio), codec.encode(audio))


def test_latents_are_standardised_by_the_stored_mean_and_deviation() -> None:
    codec = tiny_codec()
    audio = torch.randn(1, 2, 1280)
    plain, sound = codec.encode(audio), codec.decode(codec.encode(audio))
    codec.latent_mean.fill_(0.5)
    codec.latent_std.fill_(2.0)
    torch.testing.assert_close(codec.encode(audio), (plain - 0.5) / 2.0)
    torch.testing.assert_close(codec.decode(codec.encode(audio)), sound)


def test_a_true_spectrum_is_synthesized_without_loss() -> None:
    codec = tiny_codec()
    audio = torch.randn(1, 2, 1280) * 0.1
    spectrum = codec.spectrum(audio)
    magnitude = absolute(spectrum)
    exact = Spectrum(magnitude.log(), spectrum.real / magnitude, spectrum.imag / magnitude)
    torch.testing.assert_close(codec.synthesize(exact), audio, atol=1e-5, rtol=1e-4)


def test_a_steady_partial_turns_slowly_against_its_carrier() -> None:
    codec = tiny_codec()
    frequency = 20.4 * 44_100 / 256  # between two bins
    tone = torch.sin(2 * torch.pi * frequency * torch.arange(64 * 40) / 44_100).expand(1, 2, -1)
    bin_20 = codec.spectrum(tone)[0, 0, 4:-4, 20]
    turn = (bin_20[1:] * bin_20[:-1].conj()).angle() / (2 * torch.pi)
    torch.testing.assert_close(turn, torch.full_like(turn, 0.4 * 64 / 256), atol=2e-3, rtol=0)


@pytest.mark.parametrize("shape", [(2, 640), (1, 1, 640), (1, 3, 640), (1, 2, 0)])
def test_audio_of_another_shape_is_refused_by_name(shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelInputError) as refused:
        tiny_codec().encode(torch.zeros(shape))
    assert str(shape) in refused.value.message


@pytest.mark.parametrize("shape", [(4, 10), (1, 5, 10), (1, 4, 0)])
def test_latents_of_another_shape_are_refused_by_name(shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelInputError) as refused:
        tiny_codec().decode(torch.zeros(shape))
    assert str(shape) in refused.value.message


@pytest.mark.parametrize(
    "change", [{"n_fft": 250}, {"n_fft": 64}, {"phase_bins": 200}, {"kernel": 6}, {"dim": 0}, {"widht": 3}]
)
def test_shapes_that_cannot_be_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        SpectralCodecConfig.model_validate(TINY.model_dump() | change)


@pytest.mark.parametrize("change", [{"steps": None, "seconds": None}, {"crop": 5000}, {"crop": 2048}])
def test_training_that_cannot_be_is_refused(change: dict[str, int | None]) -> None:
    with pytest.raises(ValidationError):
        CodecTrainConfig.model_validate(change)


def test_decoding_is_synthesis_of_the_decoders_spectrum() -> None:
    torch.manual_seed(0)
    codec = SpectralCodec(TINY).eval()
    torch.nn.init.normal_(codec.decoder.head.weight, std=0.2)
    z_BCT = torch.randn(3, TINY.latent_channels, 8)

    def written_out() -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return codec.synthesize(codec.decoder(z_BCT * codec.latent_std + codec.latent_mean))

    with torch.no_grad():
        torch.testing.assert_close(codec.decode(z_BCT), written_out(), atol=2e-3, rtol=2e-2)
        # Trained on, it decodes with its new weights.
        codec.decoder.head.weight.mul_(0.5)
        torch.testing.assert_close(codec.decode(z_BCT), written_out(), atol=2e-3, rtol=2e-2)
    assert not any("halved" in name for name in codec.state_dict())
    assert codec.decode(z_BCT.requires_grad_()).requires_grad


def test_what_inference_keeps_training_can_use() -> None:
    stft.unit_hann.cache_clear()
    stft.inverse_energy.cache_clear()
    codec = SpectralCodec(TINY)
    z_BCT = torch.randn(1, TINY.latent_channels, 8)
    with torch.inference_mode():
        codec.decode(z_BCT)
    with torch.no_grad():
        codec.decode(z_BCT)
    audio = codec.synthesize(codec.decoder(z_BCT))
    audio.square().sum().backward()
    assert codec.decoder.head.weight.grad is not None


@torch.no_grad()
def test_a_sample_depends_on_no_frame_beyond_the_codecs_reach() -> None:
    torch.manual_seed(0)
    codec = SpectralCodec(SpectralCodecConfig(dim=32)).eval()
    z_BCT = torch.randn(1, codec.latent_channels, 80)
    cut = 30
    whole_BAS = codec.decode(z_BCT)
    errors = []
    for kept in (cut, cut + codec.reach):
        part_BAS = codec.decode(z_BCT[..., :kept])[..., : cut * codec.hop]
        errors.append(float((part_BAS - whole_BAS[..., : cut * codec.hop]).norm() / whole_BAS.norm()))
    assert errors[0] > 0.01 and errors[1] < 1e-4
