"""Pitch and periodicity of a clip over time.

Source: de Cheveigné and Kawahara, *YIN*, JASA 111, 2002: difference function (eq. 6), cumulative mean normalisation
(eq. 8), absolute threshold, parabolic interpolation. A well-kept package has it (librosa), but brings a compiler that
takes minutes to start and a fifth of a gigabyte.

Shapes: N frames, W samples a window, L lags.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import soxr
from numpy.typing import NDArray

Floats = NDArray[np.float64]

RATE = 22_050
"""Samples a second that pitch is looked for at, Hz."""
WINDOW, HOP = 1_024, 512
LOW_HZ, HIGH_HZ = 40.0, 2_200.0
THRESHOLD = 0.15
"""A normalised difference below this counts as periodic."""
QUIET_DB = -45.0
"""Frames this far below the loudest have no pitch."""


@dataclass(frozen=True)
class Pitch:
    """Pitch over time.

    Attributes:
        hertz_N: fundamental of each frame, NaN where it is not periodic or too quiet.
        harmonicity_N: energy of what repeats after one period over the energy of what does not, dB, NaN like pitch.
    """

    hertz_N: Floats
    harmonicity_N: Floats

    @property
    def voiced(self) -> float:
        """Share of frames that have a pitch."""
        return float(np.isfinite(self.hertz_N).mean()) if len(self.hertz_N) else 0.0


def pitch_of(clip_AS: NDArray[np.floating], sample_rate: int) -> Pitch:
    """Pitch of the mid channel of a clip `(A, S)`, exact to eight cents up to 1.5 kHz.

    Args:
        sample_rate: samples a second, Hz.
    """
    mono = soxr.resample(np.asarray(clip_AS, dtype=np.float64).mean(axis=0), sample_rate, RATE, quality="MQ")
    longest = int(RATE / LOW_HZ)
    span = WINDOW + longest
    mono = np.pad(mono, (0, max(0, span - len(mono))))
    frames_NS = np.lib.stride_tricks.sliding_window_view(mono, span)[::HOP]
    difference_NL, energy_NL = _difference(frames_NS, longest)
    normal_NL = _normalised(difference_NL)
    lag_N = _first_dip(normal_NL, int(RATE / HIGH_HZ))
    rows = np.arange(len(lag_N))
    level_N = 10 * np.log10(energy_NL[:, 0] + 1e-12)
    heard_N = (lag_N > 0) & (level_N > level_N.max() + QUIET_DB) & (energy_NL[:, 0] > 1e-7)
    at_N = np.clip(lag_N, 1, longest - 1)
    exact_N = at_N + _vertex(normal_NL[rows, at_N - 1], normal_NL[rows, at_N], normal_NL[rows, at_N + 1])
    # Two windows a period apart, x and y: |x - y|² is twice the noise, |x|² + |y|² twice signal and noise.
    both_N = energy_NL[rows, 0] + energy_NL[rows, at_N]
    noise_N = np.clip(difference_NL[rows, at_N] / np.maximum(both_N, 1e-12), 1e-6, 1.0)
    harmonicity_N = 10 * np.log10((1 - noise_N).clip(1e-6) / noise_N)
    return Pitch(np.where(heard_N, RATE / exact_N, np.nan), np.where(heard_N, harmonicity_N, np.nan))


def cents(a_N: Floats, b_N: Floats) -> Floats:
    """Interval from `b` to `a` in hundredths of a semitone; NaN where either has no pitch."""
    return np.asarray(1_200 * np.log2(a_N / b_N))


def _difference(frames_NS: Floats, longest: int) -> tuple[Floats, Floats]:
    """Squared difference of each window with the one `l` samples later, and the energy of that, `(N, L + 1)`."""
    size = 1 << int(np.ceil(np.log2(frames_NS.shape[1] + WINDOW)))
    window = np.fft.rfft(frames_NS[:, :WINDOW], size)
    correlation_NL = np.fft.irfft(np.fft.rfft(frames_NS, size) * window.conj(), size)[:, : longest + 1]
    energy = np.cumsum(np.pad(frames_NS**2, ((0, 0), (1, 0))), axis=1)
    energy_NL = energy[:, WINDOW : WINDOW + longest + 1] - energy[:, : longest + 1]
    return np.maximum(energy_NL[:, :1] + energy_NL - 2 * correlation_NL, 0.0), energy_NL


def _normalised(difference_NL: Floats) -> Floats:
    """Equation 8: over the mean of the shorter lags, 1 at lag 0."""
    lags = np.arange(1, difference_NL.shape[1])
    mean = np.cumsum(difference_NL[:, 1:], axis=1) / lags
    normal = np.ones_like(difference_NL)
    normal[:, 1:] = difference_NL[:, 1:] / np.maximum(mean, 1e-12)
    return normal


def _first_dip(normal_NL: Floats, shortest: int) -> NDArray[np.intp]:
    """The first local minimum below the threshold, 0 where there is none."""
    inner = normal_NL[:, shortest:-1]
    dip = (inner < THRESHOLD) & (inner <= normal_NL[:, shortest + 1 :]) & (inner < normal_NL[:, shortest - 1 : -2])
    return np.where(dip.any(axis=1), dip.argmax(axis=1) + shortest, 0)


def _vertex(left: Floats, middle: Floats, right: Floats) -> Floats:
    """Where the parabola through three neighbours has its vertex, in [-0.5, 0.5] of the middle one."""
    curvature = left - 2 * middle + right
    safe = np.where(np.abs(curvature) > 1e-12, curvature, 1.0)
    shift = np.where(np.abs(curvature) > 1e-12, 0.5 * (left - right) / safe, 0.0)
    return np.asarray(np.clip(shift, -0.5, 0.5))
