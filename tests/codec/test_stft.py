"""The transform is exact, in values, lengths and gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sonarc.codec.losses import power_spectrum
from sonarc.codec.stft import absolute, frame, istft, mid_side, stft, unit_hann


@settings(max_examples=25)
@given(
    hop=st.sampled_from([8, 16, 64]),
    overlap=st.sampled_from([2, 3, 4, 8]),
    frames=st.integers(1, 40),
    seed=st.integers(0, 2**31),
)
def test_inverse_restores_any_signal(hop: int, overlap: int, frames: int, seed: int) -> None:
    n_fft = hop * overlap
    x = torch.randn(2, 3, frames * hop, generator=torch.Generator().manual_seed(seed))
    spectrum = stft(x, n_fft, hop)
    assert spectrum.shape == (2, 3, frames, n_fft // 2 + 1)
    torch.testing.assert_close(istft(spectrum, n_fft, hop), x, atol=2e-5, rtol=1e-4)


def test_inner_frames_equal_torch_stft() -> None:
    x = torch.randn(1, 4096)
    ours = stft(x, 512, 128)
    reference = torch.stft(x, 512, 128, window=unit_hann(512), center=False, return_complex=True).transpose(1, 2)
    # Ours begins (512 - 128) / 2 = 192 samples before the signal; frame 3 then starts at sample 192.
    shifted = torch.stft(x[:, 192:], 512, 128, window=unit_hann(512), center=False, return_complex=True)
    torch.testing.assert_close(ours[:, 3 : 3 + shifted.shape[-1]], shifted.transpose(1, 2), atol=1e-5, rtol=1e-4)
    assert reference.shape[1] < ours.shape[1] == 4096 // 128


def test_lengths_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="1000"):
        stft(torch.zeros(1, 1000), 512, 128)


def test_noise_of_unit_rms_has_bins_of_unit_rms_at_every_resolution() -> None:
    x = torch.randn(1, 1, 1 << 16, generator=torch.Generator().manual_seed(0))
    for n_fft in (256, 4096):
        assert power_spectrum(x, n_fft).mean().item() == pytest.approx(1.0, rel=0.05)


def test_power_spectrum_has_the_true_gradient() -> None:
    x = torch.randn(1, 2, 64, dtype=torch.float32, requires_grad=True)
    weight = torch.rand(1, 2, 8, 9)
    (power_spectrum(x, 16) * weight).sum().backward()
    fast = x.grad
    y = x.detach().clone().requires_grad_()
    (torch.fft.rfft(frame(y, 16, 8) * unit_hann(16)).abs().square() * weight).sum().backward()
    torch.testing.assert_close(fast, y.grad, atol=1e-5, rtol=1e-4)


def test_absolute_equals_the_modulus_and_is_differentiable_at_zero() -> None:
    z = torch.tensor([3 + 4j, 0j], requires_grad=True)
    value = absolute(z)
    torch.testing.assert_close(value, torch.tensor([5.0, 0.0]), atol=1e-6, rtol=1e-6)
    value.sum().backward()
    assert z.grad is not None and torch.isfinite(torch.view_as_real(z.grad)).all()


def test_mid_side_is_its_own_inverse_and_keeps_energy() -> None:
    x = torch.randn(3, 2, 100)
    torch.testing.assert_close(mid_side(mid_side(x)), x)
    torch.testing.assert_close(mid_side(x).square().sum(), x.square().sum())
