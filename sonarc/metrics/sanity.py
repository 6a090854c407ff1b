"""Figures that catch broken audio whatever its distribution: silence, clipping, NaN, lost stereo, lost treble."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

SILENT_PEAK = 1e-3  # -60 dB full scale
CLIPPED_FRACTION = 1e-3
FRAME, HOP = 2_048, 1_024
ROLLOFF = 0.95
MONO_DB = -60.0


@dataclass(frozen=True)
class Sanity:
    """Figures of a set of clips; medians leave silent and NaN clips out.

    Attributes:
        silent_fraction: clips whose peak is below -60 dB full scale.
        clipped_fraction: clips with more than one sample in a thousand at or beyond full scale.
        nonfinite_fraction: clips with a sample that is not finite.
        side_db: median energy of (L - R) / 2 against that of (L + R) / 2, dB, at least -60 (mono).
        correlation: median correlation of the channels; 1 for mono.
        rolloff_hz: median frequency below which 95 % of a clip's energy lies.
        centroid_hz: median spectral centroid.
        centroid_spread_hz: standard deviation over clips of the spectral centroid.
    """

    silent_fraction: float
    clipped_fraction: float
    nonfinite_fraction: float
    side_db: float
    correlation: float
    rolloff_hz: float
    centroid_hz: float
    centroid_spread_hz: float

    def as_dict(self) -> dict[str, float]:
        """Figure by name."""
        return {name: float(value) for name, value in asdict(self).items()}


def sanity(clips: list[NDArray[np.float32]], sample_rate: int) -> Sanity:
    """The figures of clips `(A, S_i)`, each at its own true length.

    Args:
        sample_rate: samples a second, Hz.
    """
    # A comparison with NaN is false, so such a clip counts once, as not finite.
    nan = np.array([not np.isfinite(clip).all() for clip in clips])
    silent = np.array([bool(np.abs(clip).max() < SILENT_PEAK) for clip in clips])
    clipped = np.array([_clipped(clip) for clip in clips])
    good = [clip.astype(np.float64) for clip, bad in zip(clips, nan | silent, strict=True) if not bad]
    shapes = np.array([_shape(clip, sample_rate) for clip in good]) if good else np.zeros((1, 4))
    side, correlation, rolloff, centroid = shapes.T
    return Sanity(
        silent_fraction=float(silent.mean()),
        clipped_fraction=float(clipped.mean()),
        nonfinite_fraction=float(nan.mean()),
        side_db=float(np.median(side)),
        correlation=float(np.median(correlation)),
        rolloff_hz=float(np.median(rolloff)),
        centroid_hz=float(np.median(centroid)),
        centroid_spread_hz=float(np.std(centroid)),
    )


def _clipped(clip_AS: NDArray[np.float32]) -> bool:
    return bool((np.abs(clip_AS) >= 1.0).mean() > CLIPPED_FRACTION)


def _shape(clip_AS: NDArray[np.float64], sample_rate: int) -> tuple[float, float, float, float]:
    left, right = clip_AS[0], clip_AS[-1]
    mid, side = (left + right) / 2, (left - right) / 2
    power_F = _power(mid) + _power(side)
    hertz_F = np.fft.rfftfreq(FRAME, 1 / sample_rate)
    total = power_F.sum()
    rolloff = hertz_F[int(np.searchsorted(np.cumsum(power_F), ROLLOFF * total))]
    centroid = float((hertz_F * power_F).sum() / total)
    side_db = 10 * np.log10(max(float((side**2).sum() / max((mid**2).sum(), 1e-30)), 10 ** (MONO_DB / 10)))
    return float(side_db), _correlation(left, right), float(rolloff), centroid


def _power(mono_S: NDArray[np.float64]) -> NDArray[np.float64]:
    """Power spectrum summed over Hann frames."""
    padded = np.pad(mono_S, (0, max(0, FRAME - len(mono_S))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, FRAME)[::HOP]
    return np.asarray((np.abs(np.fft.rfft(frames * np.hanning(FRAME))) ** 2).sum(axis=0))


def _correlation(left: NDArray[np.float64], right: NDArray[np.float64]) -> float:
    a, b = left - left.mean(), right - right.mean()
    scale = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / scale) if scale > 0 else 0.0
