"""The linear start is the autoencoder that principal components give."""

from __future__ import annotations

import torch

from sonarc.codec.linear_start import start_linear
from sonarc.codec.losses import head_magnitude
from sonarc.codec.spectral import SpectralCodec, join, part, spectral_features
from tests.codec.test_spectral import TINY, tiny_codec


def music(count: int = 6, samples: int = 8192) -> torch.Tensor:
    """Noise under slow envelopes, of one colour: a few components explain it."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(count, 2, samples, generator=generator)
    envelope = torch.rand(count, 1, samples // 1024, generator=generator).repeat_interleave(1024, -1)
    return 0.3 * noise * envelope


def without_blocks(codec: SpectralCodec) -> SpectralCodec:
    for name, parameter in codec.named_parameters():
        if name.endswith("scale"):
            parameter.data.zero_()
    return codec


def test_join_and_part_are_inverse() -> None:
    x = torch.randn(2, 12, 5)
    assert torch.equal(part(join(x, 3), 3), x)
    assert torch.equal(join(x, 3)[:, 1, 5:10], x[:, 4])


def test_latents_start_with_unit_deviation_and_uncorrelated() -> None:
    codec, audio = without_blocks(tiny_codec()), music()
    start_linear(codec, [audio])
    with torch.no_grad():
        mean_BCT, _ = codec.encoder(codec.spectrum(audio))
    rows = mean_BCT.transpose(1, 2).flatten(0, 1)
    torch.testing.assert_close(rows.T @ rows / len(rows), torch.eye(4), atol=0.02, rtol=0)


def test_it_reconstructs_exactly_what_its_components_hold() -> None:
    # One frame a latent and as many latents as features: nothing is left out, so nothing may be lost.
    config = TINY.model_copy(update={"stride": 1, "n_fft": 32, "stft_hop": 8, "phase_bins": 17, "dim": 102})
    codec = without_blocks(tiny_codec(config.model_copy(update={"latent_channels": 102})))
    audio = music()
    start_linear(codec, [audio])
    with torch.no_grad():
        spectrum = codec.spectrum(audio)
        mean_BCT, _ = codec.encoder(spectrum)
        decoded = codec.decoder(mean_BCT)
        assert head_magnitude(decoded, spectrum) < 0.02
    rebuilt = codec.synthesize(decoded)
    assert (rebuilt - audio).norm() < 0.1 * audio.norm()


def test_a_start_beats_random_weights() -> None:
    codec, audio = tiny_codec(), music()

    def error() -> float:
        with torch.no_grad():
            spectrum = codec.spectrum(audio)
            return float(head_magnitude(codec.decoder(codec.encoder(spectrum)[0]), spectrum))

    before = error()
    start_linear(codec, [audio[:3], audio[3:]])
    assert error() < 0.7 * before


def test_features_put_a_medium_magnitude_at_zero() -> None:
    silent = spectral_features(torch.zeros(1, 2, 3, 5, dtype=torch.complex64), 2)
    assert silent.shape == (1, 3, 2 * (5 + 4))
    torch.testing.assert_close(silent[0, 0, :5], torch.full((5,), -2.3026), atol=2e-3, rtol=0)
    medium = spectral_features(torch.full((1, 2, 1, 5), 9e-4, dtype=torch.complex64), 2)
    torch.testing.assert_close(medium[0, 0, :5], torch.zeros(5), atol=1e-3, rtol=0)
