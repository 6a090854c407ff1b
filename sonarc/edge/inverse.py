"""The codec's inverse transform in real numbers: ONNX has no complex ones.

A spectrum's half of K = n_fft / 2 bins (and the Nyquist bin) goes through a two-stage Cooley-Tukey factorisation,
`K = Q · R`, whose stages are small matrix products: bin `k = Q·k₂ + k₁` and sample `n = (n_fft / Q)·n₁ + n₂`.
The carrier that the codec measures phases against turns a frame's samples in a circle, by a hop a frame: it costs an
index, no multiplication.

Source: Cooley & Tukey, An Algorithm for the Machine Calculation of Complex Fourier Series (1965).
Shapes: N frames, F = K + 1 bins, S samples, any leading dimensions `...`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sonarc.codec.stft import inverse_energy, overlap_add, unit_hann


class RealInverse(nn.Module):
    """`istft(spectrum · carrier)` of the spectral codec, of real and imaginary parts apart.

    Args:
        n_fft: window length in samples, a multiple of `hop`.
        hop: samples from frame to frame.
        frames: frames N of every spectrum.
    """

    first: Tensor
    twiddle_cos: Tensor
    twiddle_sin: Tensor
    last: Tensor
    weight: Tensor
    nyquist: Tensor
    turned: Tensor
    window: Tensor
    inverse_energy: Tensor

    def __init__(self, n_fft: int, hop: int, frames: int) -> None:
        super().__init__()
        self.n_fft, self.hop, self.frames = n_fft, hop, frames
        self.bins = n_fft // 2
        self.inner = _divisor_near_root(self.bins)  # Q
        self.outer = self.bins // self.inner  # R
        span = n_fft // self.inner
        first = _angles(span, self.outer, span)
        twiddle = _angles(span, self.inner, n_fft)
        last = _angles(self.inner, self.inner, self.inner)
        for name, table in {
            "first": torch.cat([torch.cat([first.cos(), -first.sin()], 1), torch.cat([first.sin(), first.cos()], 1)]),
            "twiddle_cos": twiddle.cos(),
            "twiddle_sin": twiddle.sin(),
            "last": torch.cat([last.cos(), -last.sin()]),
            "weight": torch.cat([torch.ones(1), torch.full((self.bins - 1,), 2.0)]) / n_fft,
            "nyquist": torch.tensor([1.0, -1.0]).repeat(self.bins) / n_fft,
        }.items():
            self.register_buffer(name, table.float())
        period = n_fft // hop
        frame, block = torch.arange(frames)[:, None], torch.arange(period)
        self.register_buffer("turned", (frame * period + (block + frame) % period).flatten())
        self.register_buffer("window", unit_hann(n_fft).reshape(period, hop).repeat(frames, 1))
        self.register_buffer("inverse_energy", inverse_energy(frames, n_fft, hop))

    def forward(self, real_NF: Tensor, imag_NF: Tensor) -> Tensor:
        """Audio `(..., N · hop)` of parts `(..., N, F)`."""
        lead = real_NF.shape[:-2]
        samples = self._frames(real_NF, imag_NF)
        blocks = samples.reshape(*lead, -1, self.hop).index_select(-2, self.turned) * self.window
        return overlap_add(blocks.reshape(*lead, self.frames, self.n_fft), self.hop) * self.inverse_energy

    def _frames(self, real_NF: Tensor, imag_NF: Tensor) -> Tensor:
        """`irfft` of every frame, `(..., N, n_fft)`."""
        lead = real_NF.shape[:-1]
        grid = (*lead, self.outer, self.inner)
        both = torch.cat([(part[..., : self.bins] * self.weight).reshape(grid) for part in (real_NF, imag_NF)], -2)
        real, imag = (self.first @ both).chunk(2, dim=-2)
        turned_real = real * self.twiddle_cos - imag * self.twiddle_sin
        turned_imag = real * self.twiddle_sin + imag * self.twiddle_cos
        samples = torch.cat([turned_real, turned_imag], -1) @ self.last
        return samples.transpose(-1, -2).reshape(*lead, self.n_fft) + real_NF[..., self.bins :] * self.nyquist


def _divisor_near_root(number: int) -> int:
    return next(d for d in range(math.isqrt(number), 0, -1) if number % d == 0)


def _angles(rows: int, columns: int, period: int) -> Tensor:
    """`2π·row·column / period` in float64, reduced to one turn before it is rounded."""
    turns = torch.outer(torch.arange(rows), torch.arange(columns)) % period
    return turns.double() * (2 * math.pi / period)
