"""What a caption states and signal processing can hear: register, key, tempo, loudness, length.

A clip is measured once, without its caption (`hear`); what its caption states is compared afterwards (`agreement`), so
that the same measurements serve any caption. Real clips, measured alike, are the ceiling of every figure.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import soxr
from numpy.typing import NDArray

from sonarc.metrics.pitch import RATE, Floats, pitch_of

RECIPE = "hearing/1"
"""Raised with every change of what is measured, so that measurements that are kept are not mixed."""
CLASSES = ("C", "C sharp", "D", "E flat", "E", "F", "F sharp", "G", "A flat", "A", "B flat", "B")
_OTHER_NAMES = {"D flat": "C sharp", "D sharp": "E flat", "G flat": "F sharp", "G sharp": "A flat", "A sharp": "B flat"}
SCALES = {
    "major": (0, 2, 4, 5, 7, 9, 11),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
    "mixolydian": (0, 2, 4, 5, 7, 9, 10),
}
REGISTERS = (("low", -np.inf, 57.0), ("middle", 57.0, 72.0), ("high", 72.0, np.inf))
"""Name and range of the mean pitch, MIDI numbers, as `sonarc.demo.plan.register_of` has them."""
TEMPO_TOLERANCE = 0.08
SILENT_DB = -50.0
FEATURES = ("pitch", "voiced", "harmonicity", "lufs", "sounding", *(f"chroma {name}" for name in CLASSES))
"""Columns of what is heard: median pitch (MIDI number), share of frames with a pitch, median harmonicity (dB),
loudness (LUFS), seconds until the last sound, energy of each pitch class (their sum is 1). The onsets follow."""
ONSETS = 160
"""Columns of the onset strength's autocorrelation, at lags of one onset frame each."""
ONSET_HOP = 256


def hear(clip_AS: NDArray[np.floating], sample_rate: int) -> NDArray[np.float32]:
    """What is heard in a clip `(A, S)`: `FEATURES`, then `ONSETS` values; NaN where something cannot be heard."""
    clip = np.asarray(clip_AS, dtype=np.float64)
    if not np.isfinite(clip).all() or not clip.any():
        return np.full(len(FEATURES) + ONSETS, np.nan, np.float32)
    mono = soxr.resample(clip.mean(axis=0), sample_rate, RATE, quality="MQ")
    pitch = pitch_of(clip, sample_rate)
    voiced = np.isfinite(pitch.hertz_N)
    middle = 69 + 12 * np.log2(np.median(pitch.hertz_N[voiced]) / 440) if voiced.any() else np.nan
    harmonicity = np.median(pitch.harmonicity_N[voiced]) if voiced.any() else np.nan
    figures = [middle, pitch.voiced, harmonicity, _loudness(clip, sample_rate), _sounding(clip, sample_rate)]
    return np.array([*figures, *_chroma(mono), *_onsets(mono)], dtype=np.float32)


def agreement(
    heard_NF: NDArray[np.floating], concepts: Sequence[str], seconds: Sequence[float], lufs: float
) -> dict[str, Floats]:
    """How well clips agree with what is stated, each `(N,)`, NaN where nothing is stated or heard.

    Args:
        heard_NF: what `hear` gave.
        concepts: canonical JSON of the facts behind the captions.
        seconds: lengths asked for.
        lufs: loudness that clips were trained at.

    Returns:
        `in_register`, 1 where the median pitch lies in the stated register (of single lines); `in_key`, share of tonal
        energy on the stated key's scale (7 of 12 by chance give .58); `tempo`, 1 where the stated beat is among the
        two strongest periods, a factor of 2 or 3 allowed; `loudness`, |Δ| in dB; `length`, |Δ| in seconds between the
        last sound and the length asked for.
    """
    heard = np.asarray(heard_NF, dtype=np.float64)
    facts = [json.loads(concept) for concept in concepts]
    column = {name: heard[:, i] for i, name in enumerate(FEATURES)}
    chroma_NK = heard[:, len(FEATURES) - 12 : len(FEATURES)]
    onsets_NL = heard[:, len(FEATURES) :]
    return {
        "in_register": np.array([_in_register(f, p) for f, p in zip(facts, column["pitch"], strict=True)]),
        "in_key": np.array([_in_key(f, c) for f, c in zip(facts, chroma_NK, strict=True)]),
        "tempo": np.array([_on_beat(f, o) for f, o in zip(facts, onsets_NL, strict=True)]),
        "loudness": np.abs(column["lufs"] - lufs),
        "length": np.abs(column["sounding"] - np.asarray(seconds, dtype=np.float64)),
    }


def _in_register(facts: dict[str, object], pitch: float) -> float:
    stated = facts.get("register")
    if stated is None or facts.get("form") == "chorale" or not np.isfinite(pitch):
        return np.nan
    return float(any(name == stated and low <= pitch < high for name, low, high in REGISTERS))


def _in_key(facts: dict[str, object], chroma_K: Floats) -> float:
    stated = facts.get("key")
    if stated is None or not np.isfinite(chroma_K).all():
        return np.nan
    tonic, _, mode = str(stated).rpartition(" ")
    tonic = _OTHER_NAMES.get(tonic, tonic)
    if tonic not in CLASSES or mode not in SCALES:
        return np.nan
    first = CLASSES.index(tonic)
    return float(sum(chroma_K[(first + step) % 12] for step in SCALES[mode]))


def _on_beat(facts: dict[str, object], onsets_L: Floats) -> float:
    stated = facts.get("bpm")
    if stated is None or not np.isfinite(onsets_L).all():
        return np.nan
    inner = onsets_L[1:-1]
    peaks = np.flatnonzero((inner > onsets_L[:-2]) & (inner >= onsets_L[2:])) + 1
    strongest = peaks[np.argsort(onsets_L[peaks])[::-1][:2]]
    beat = 60.0 / float(str(stated)) * RATE / ONSET_HOP
    ratios = [beat * factor for factor in (1 / 3, 1 / 2, 1, 2)]
    return float(any(abs(lag / wanted - 1) < TEMPO_TOLERANCE for lag in strongest for wanted in ratios))


def _loudness(clip_AS: Floats, sample_rate: int) -> float:
    """Integrated loudness, LUFS; NaN for clips shorter than one block of BS.1770."""
    from pyloudnorm import Meter

    if clip_AS.shape[1] < 0.4 * sample_rate + 1:
        return float("nan")
    loudness = float(Meter(sample_rate).integrated_loudness(clip_AS.T))
    return loudness if np.isfinite(loudness) else float("nan")


def _sounding(clip_AS: Floats, sample_rate: int) -> float:
    """Seconds until the last sample within 50 dB of the peak."""
    level = np.abs(clip_AS).max(axis=0)
    return float(np.flatnonzero(level > level.max() * 10 ** (SILENT_DB / 20))[-1] + 1) / sample_rate


def _chroma(mono_S: Floats) -> Floats:
    """Share of each pitch class in the spectral peaks between 65 Hz and 2.1 kHz, weighed by root amplitude."""
    size, hop = 8_192, 2_048
    padded = np.pad(mono_S, (0, max(0, size - len(mono_S))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop] * np.hanning(size)
    magnitude_NF = np.abs(np.fft.rfft(frames))
    inner = magnitude_NF[:, 1:-1]
    peak = (inner > magnitude_NF[:, :-2]) & (inner >= magnitude_NF[:, 2:]) & (inner > 0.03 * inner.max())
    hertz = np.fft.rfftfreq(size, 1 / RATE)[1:-1]
    usable = (hertz > 65) & (hertz < 2_100)
    number = np.round(69 + 12 * np.log2(np.maximum(hertz, 1.0) / 440)).astype(int) % 12
    energy_F = np.where(peak & usable, np.sqrt(inner), 0.0).sum(axis=0)
    chroma = np.bincount(number, weights=energy_F, minlength=12)
    return np.asarray(chroma / max(chroma.sum(), 1e-12))


def _onsets(mono_S: Floats) -> Floats:
    """Autocorrelation of the onset strength (half-wave rectified spectral flux), 1 at lag 0."""
    size = 1_024
    padded = np.pad(mono_S, (0, max(0, size + ONSETS * ONSET_HOP - len(mono_S))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::ONSET_HOP] * np.hanning(size)
    level = np.log1p(100 * np.abs(np.fft.rfft(frames)) / size)
    flux = np.maximum(np.diff(level, axis=0), 0).sum(axis=1)
    flux = flux - flux.mean()
    full = np.correlate(flux, flux, mode="full")[len(flux) - 1 :][:ONSETS]
    full = np.pad(full, (0, ONSETS - len(full)))
    return np.asarray(full / max(float(full[0]), 1e-12))
