"""What the codec is trained to minimise, besides the KL term and the optional discriminator.

Shapes: B batch, A audio channels, S samples, N frames, F bins.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from sonarc.codec.spectral import COMPRESSION, FLOOR, Spectrum
from sonarc.codec.stft import absolute, frame, unit_hann

RESOLUTIONS = (256, 512, 1024, 2048, 4096)
BANDS = 40


class _PowerSpectrum(torch.autograd.Function):
    """|rfft(x)|² of `(..., n)`: autograd's own backward pass runs a full complex transform, this one a real one."""

    @staticmethod
    def forward(ctx: Any, frames: Tensor) -> Tensor:
        spectrum = torch.fft.rfft(frames)
        ctx.save_for_backward(spectrum)
        ctx.n = frames.shape[-1]
        parts = torch.view_as_real(spectrum)
        power: Tensor = parts[..., 0].square().addcmul_(parts[..., 1], parts[..., 1])
        return power

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (spectrum,) = ctx.saved_tensors
        # d|X_k|²/dx = 2 Re(X_k* e^{-iωk}); irfft counts the inner bins twice and divides by n.
        scale = torch.full_like(grad[0, 0, 0], float(ctx.n))
        scale[0] = scale[-1] = 2.0 * ctx.n
        parts = torch.view_as_real(spectrum) * (grad * scale).unsqueeze(-1)
        gradient: Tensor = torch.fft.irfft(torch.view_as_complex(parts), n=ctx.n)
        return gradient


def power_spectrum(x_BAS: Tensor, n_fft: int) -> Tensor:
    """Squared magnitudes `(B, A, N, F)` with a Hann window of unit energy and half overlap."""
    frames = frame(x_BAS, n_fft, n_fft // 2) * unit_hann(n_fft)
    power: Tensor = _PowerSpectrum.apply(frames)  # type: ignore[no-untyped-call]
    return power


@cache
def _bands(bins: int) -> Tensor:
    """Which bins make which band, `(F, bands)`: of equal width on a logarithmic axis, or one bin where that is more."""
    edges = [0]
    for band in range(1, BANDS + 1):
        edges.append(max(edges[-1] + 1, round(bins ** (band / BANDS))))
        if edges[-1] >= bins:
            break
    edges[-1] = bins
    members = torch.zeros(bins, len(edges) - 1)
    for band, (low, high) in enumerate(pairwise(edges)):
        members[low:high, band] = 1.0
    return members


def _log_distance(got: Tensor, wanted: Tensor) -> Tensor:
    """Mean |Δ log magnitude| of two powers, nepers; -80 dB is the floor."""
    return 0.5 * ((got + FLOOR**2).log() - (wanted + FLOOR**2).log()).abs().mean()


def _convergence(got: Tensor, wanted: Tensor) -> Tensor:
    """Distance of two magnitudes over the norm of the wanted one, of a whole batch: by item it explodes on silence."""
    difference = (got + 1e-10).sqrt() - (wanted + 1e-10).sqrt()
    return (difference.square().sum() / wanted.sum().clamp_min(1e-6)).sqrt()


def multi_resolution(audio_BAS: Tensor, target_BAS: Tensor, n_fft: int) -> dict[str, Tensor]:
    """Distances at one resolution: `log_magnitude`, `convergence`, `band_energy`, `clip_energy`, `average_spectrum`.

    The first is the least where a bin that cannot be known has its *median*, which is quieter than its mean. The
    energy of a whole band can be known, and keeps noise as loud as it was. That of a band over a clip is ruled by its
    loudest moments, which are blurred and lose most; that over a whole batch by its loudest clips.
    """
    with torch.no_grad():
        wanted = power_spectrum(target_BAS, n_fft)
    got = power_spectrum(audio_BAS, n_fft)
    bands = _bands(got.shape[-1])
    got_bands, wanted_bands = got @ bands, wanted @ bands
    averages = [energy.mean(dim=(0, 1, 2)) for energy in (got_bands, wanted_bands)]
    return {
        "log_magnitude": _log_distance(got, wanted),
        "convergence": _convergence(got, wanted),
        "band_energy": _log_distance(got_bands, wanted_bands),
        "clip_energy": _log_distance(*(energy.mean(dim=(1, 2)) for energy in (got_bands, wanted_bands))),
        "average_spectrum": _log_distance(*averages),
    }


def head_magnitude(spectrum: Spectrum, target_BANF: Tensor) -> Tensor:
    """L1 of the compressed magnitudes and of their logarithms, before the inverse transform."""
    magnitude = absolute(target_BANF)
    predicted = spectrum.log_magnitude
    compressed = ((predicted * COMPRESSION).exp() - (magnitude + 1e-7).pow(COMPRESSION)).abs().mean()
    logarithmic = ((predicted.exp() + FLOOR).log() - (magnitude + FLOOR).log()).abs().mean()
    return compressed + 0.5 * logarithmic


def _neighbours(x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    size = x.shape[dim] - 1
    return x.narrow(dim, 1, size), x.narrow(dim, 0, size)


def phase(spectrum: Spectrum, target_BANF: Tensor, bins: int) -> Tensor:
    """1 - cos of the error of the phase, of its step in time and of its step in frequency, in the lowest bins.

    Weighted by magnitude and towards low frequencies, where a latent can afford to carry phase. Only the
    angle is judged, so that an uncertain phase does not make a bin quieter.
    """
    target = target_BANF[..., :bins]
    magnitude = absolute(target).clamp_min(1e-7)
    weight = magnitude / (1.0 + torch.arange(bins) / (bins / 8))
    # The error's unit vector: predicted phase times the conjugate of the wanted one.
    wanted_cos, wanted_sin = target.real / magnitude, target.imag / magnitude
    cos, sin = spectrum.cos[..., :bins], spectrum.sin[..., :bins]
    error_cos = cos * wanted_cos + sin * wanted_sin
    error_sin = sin * wanted_cos - cos * wanted_sin

    def step(dim: int) -> Tensor:
        cos_a, cos_b = _neighbours(error_cos, dim)
        sin_a, sin_b = _neighbours(error_sin, dim)
        agreement = cos_a * cos_b + sin_a * sin_b
        both = torch.minimum(*_neighbours(weight, dim))
        return (both * (1.0 - agreement)).sum() / both.sum().clamp_min(1e-6)

    position = (weight * (1.0 - error_cos)).sum() / weight.sum().clamp_min(1e-6)
    return position + 0.5 * step(-2) + 0.5 * step(-1)


def kl_divergence(mean: Tensor, log_var: Tensor) -> Tensor:
    """Divergence of the posterior from a unit normal, the mean over latent values, in nats."""
    return 0.5 * (mean.square() + log_var.exp() - 1.0 - log_var).mean()
