"""The real inverse transform is the codec's complex one."""

from __future__ import annotations

import pytest
import torch

from sonarc.codec.config import SpectralCodecConfig
from sonarc.codec.spectral import SpectralCodec
from sonarc.codec.stft import istft
from sonarc.edge.inverse import RealInverse


@pytest.mark.parametrize(("n_fft", "hop", "frames"), [(2048, 512, 6), (2048, 512, 9), (64, 16, 5), (24, 8, 4)])
def test_it_is_the_codecs(n_fft: int, hop: int, frames: int) -> None:
    torch.manual_seed(0)
    config = SpectralCodecConfig(n_fft=n_fft, stft_hop=hop, phase_bins=4, dim=8)
    spectrum_BANF = torch.randn(1, 2, frames, config.bins, dtype=torch.complex64)
    wanted = istft(spectrum_BANF * SpectralCodec(config)._carrier(frames), n_fft, hop)
    found = RealInverse(n_fft, hop, frames)(spectrum_BANF.real, spectrum_BANF.imag)
    assert found.shape == wanted.shape
    assert (found - wanted).abs().max() < 1e-5 * wanted.abs().max()
