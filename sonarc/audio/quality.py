"""Damage that decoding does not notice: clipped waves, and rates that promise more band than there is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sonarc.audio.decode import Waveform
from sonarc.audio.level import peak_of
from sonarc.audio.refusal import Refused
from sonarc.contracts.config import DataConfig
from sonarc.contracts.dataset import Reason

FLAT = 4
"""As many samples in a row at the very peak are no wave's top but a cut."""
AT_PEAK = 0.999
BAND_HZ = 250.0
WINDOW = 4_096
MOST_WINDOWS = 64
LOWEST_HZ = 3_000.0
"""Lower than any rate that sound was ever kept at would give; a pure bass ends in a cliff by itself."""
CLIFF_DB = 30.0
"""A fall of the average spectrum within two bands that no instrument and no room makes, but a resampler does."""
FLOOR_DB = 10.0
"""How much what lies above a cliff may vary: an empty band does not."""


def check_quality(waveform: Waveform, config: DataConfig) -> None:
    """Refuse damaged sound.

    Raises:
        Refused: clipped beyond `config.max_clipped`, or without the band that its rate promises.
    """
    if (share := clipped_share(waveform.audio_AS)) > config.max_clipped:
        raise Refused(Reason.CLIPPED, f"{share:.1%} of its samples are cut off at its peak")
    found = bandwidth(waveform.audio_AS, waveform.sample_rate)
    if found < min(config.min_bandwidth_hz, 0.8 * waveform.sample_rate / 2):
        raise Refused(Reason.NARROW, f"its spectrum ends at {found:.0f} Hz, at a rate of {waveform.sample_rate} Hz")


def clipped_share(audio_AS: NDArray[np.float32]) -> float:
    """Share of a file's samples that stand in flat runs at its peak, in [0, 1]; square waves have many by nature."""
    peak = peak_of(audio_AS)
    if peak == 0:
        return 0.0
    at_AS = np.abs(audio_AS) >= AT_PEAK * peak
    if np.count_nonzero(at_AS) < FLAT:
        return 0.0
    same_AS = at_AS[:, 1:] & at_AS[:, :-1]
    if not same_AS.any():  # as nearly always
        return 0.0
    same_AS &= np.signbit(audio_AS[:, 1:]) == np.signbit(audio_AS[:, :-1])
    width = same_AS.shape[1] - FLAT + 2
    if width <= 0:
        return 0.0
    runs = same_AS[:, :width]
    for shift in range(1, FLAT - 1):
        runs = runs & same_AS[:, shift : shift + width]
    return float(runs.sum()) / audio_AS.size


def bandwidth(audio_AS: NDArray[np.float32], sample_rate: int) -> float:
    """Where a file's spectrum ends in a cliff, Hz; half the sample rate where it does not.

    A file that was resampled up has nothing above its old band, and a fall of tens of decibels at its edge. A dull
    sound falls off slowly and keeps the whole band.
    """
    from scipy.fft import rfft  # three times as fast as numpy's in single precision

    nyquist = sample_rate / 2
    samples = audio_AS.shape[1]
    if samples < WINDOW:
        return nyquist
    starts = np.linspace(0, samples - WINDOW, min(MOST_WINDOWS, samples // WINDOW)).astype(int)
    frames = np.stack([audio_AS[:, start : start + WINDOW] for start in starts]).mean(axis=1)
    frames *= np.blackman(WINDOW).astype(np.float32)
    power_F = np.square(np.abs(rfft(frames))).mean(axis=0)
    per_band = max(1, round(BAND_HZ * WINDOW / sample_rate))
    bands = power_F[: len(power_F) // per_band * per_band].reshape(-1, per_band).mean(axis=1)
    level_K = 10 * np.log10(bands + 1e-3)  # about the noise of 16 bits
    fall_K = level_K[:-2] - level_K[2:]
    for k in np.flatnonzero(fall_K >= CLIFF_DB)[::-1]:
        above = level_K[k + 2 :]
        edge = float((k + 2) * per_band * sample_rate / WINDOW)
        if edge >= LOWEST_HZ and len(above) >= 2 and above.max() - above.min() <= FLOOR_DB:
            return edge
    return nyquist
