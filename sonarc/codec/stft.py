"""Short-time Fourier transform and its inverse, with exact lengths and a fast backward pass.

A signal of S samples (a multiple of the hop) gives exactly S/hop frames, centred on the hops they stand
for, and the inverse gives exactly frames × hop samples back. Frames are cut by slicing whole hops, not by
`torch.stft`, whose backward pass is several times slower on CPU.

Shapes: S audio samples, N frames, F bins, any leading dimensions `...`.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import pad


@lru_cache(maxsize=32)
def unit_hann(n_fft: int) -> Tensor:
    """Periodic Hann window of unit energy: noise of RMS σ then has bins of RMS σ, whatever `n_fft`."""
    with torch.inference_mode(False):  # what inference makes and keeps, training must be able to use
        return _unit_hann(n_fft, torch.device("cpu"))


def _unit_hann(n_fft: int, device: torch.device) -> Tensor:
    window = torch.hann_window(n_fft, dtype=torch.float64, device=device)
    return (window / window.square().sum().sqrt()).float()


def _window(n_fft: int, device: torch.device) -> Tensor:
    """The window: kept on a CPU; made anew on a GPU, where that is sooner done than copied, and a graph may hold it."""
    return unit_hann(n_fft) if device.type == "cpu" else _unit_hann(n_fft, device)


def frame(x_S: Tensor, n_fft: int, hop: int) -> Tensor:
    """Cut `(..., S)` into `(..., S/hop, n_fft)` overlapping frames centred on their hop."""
    edge = (n_fft - hop) // 2
    padded = pad(x_S, (edge, n_fft - hop - edge))
    hops = padded.reshape(*padded.shape[:-1], -1, hop)
    count = x_S.shape[-1] // hop
    return torch.cat([hops[..., i : i + count, :] for i in range(n_fft // hop)], dim=-1)


def overlap_add(frames: Tensor, hop: int) -> Tensor:
    """Sum `(..., N, n_fft)` frames at their places and trim to `(..., N·hop)`: the adjoint of `frame`."""
    n_fft = frames.shape[-1]
    parts = frames.reshape(*frames.shape[:-1], -1, hop)
    overlap = n_fft // hop
    hops = sum(pad(parts[..., i, :], (0, 0, i, overlap - 1 - i)) for i in range(overlap))
    assert isinstance(hops, Tensor)
    edge = (n_fft - hop) // 2
    return hops.flatten(-2)[..., edge : edge + frames.shape[-2] * hop]


def stft(x_S: Tensor, n_fft: int, hop: int) -> Tensor:
    """Complex spectrum `(..., S/hop, n_fft/2 + 1)` of real audio `(..., S)`.

    Args:
        x_S: audio; its last dimension must be a multiple of `hop`.
        n_fft: window length in samples, a multiple of `hop`.
        hop: samples from frame to frame.
    """
    if n_fft % hop or x_S.shape[-1] % hop:
        raise ValueError(f"n_fft {n_fft} and length {x_S.shape[-1]} must be multiples of the hop {hop}")
    spectrum: Tensor = torch.fft.rfft(frame(x_S, n_fft, hop) * _window(n_fft, x_S.device))
    return spectrum


def istft(spectrum_NF: Tensor, n_fft: int, hop: int) -> Tensor:
    """Audio `(..., N·hop)` whose spectrum is nearest to `(..., N, n_fft/2 + 1)` in least squares."""
    window, count = _window(n_fft, spectrum_NF.device), spectrum_NF.shape[-2]
    frames = torch.fft.irfft(spectrum_NF, n=n_fft) * window
    on_cpu = window.device.type == "cpu"
    energy = inverse_energy(count, n_fft, hop) if on_cpu else _inverse_energy(window, count, hop)
    return overlap_add(frames, hop) * energy


@lru_cache(maxsize=32)
def inverse_energy(count: int, n_fft: int, hop: int) -> Tensor:
    """One over the sum of the squared windows of `count` frames at every sample."""
    with torch.inference_mode(False):
        return _inverse_energy(unit_hann(n_fft), count, hop)


def _inverse_energy(window: Tensor, count: int, hop: int) -> Tensor:
    return 1.0 / overlap_add(window.square().expand(count, len(window)), hop)


def absolute(spectrum: Tensor) -> Tensor:
    """|spectrum|, several times faster on CPU than `Tensor.abs` of a complex tensor, with a gradient of 0 at 0."""
    real, imag = torch.view_as_real(spectrum).unbind(-1)
    magnitude: Tensor = (real.square() + imag.square() + 1e-14).sqrt()
    return magnitude


def mid_side(x_BAS: Tensor) -> Tensor:
    """Orthonormal rotation between left/right and mid/side, `(B, 2, ...)`: its own inverse."""
    left, right = x_BAS.unbind(1)
    return torch.stack([left + right, left - right], dim=1) * math.sqrt(0.5)
