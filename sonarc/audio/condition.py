"""A waveform to clips of one format: stereo, one sample rate, one loudness, silence trimmed, cut and padded."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sonarc.audio.decode import Waveform
from sonarc.audio.level import ABSOLUTE_LUFS, BLOCK_SECONDS, integrated_loudness, peak_of
from sonarc.audio.refusal import Refused
from sonarc.contracts.config import AudioConfig, DataConfig
from sonarc.contracts.dataset import Reason

FADE_SECONDS = 0.005
"""Raised-cosine fade where a clip was cut out of running sound."""
TAIL_FRACTION = 0.25
"""A rest of a long file shorter than this share of a clip is dropped: it no longer bears the caption."""

FADED_LU = 24.0
"""A clip this much quieter than the loudest of its file is a decay's last remains: levelling it would raise noise."""

_H = math.sqrt(0.5)

# Left and right as sums of the channels of mono, stereo, 3.0, quad, 5.0, 5.1, 6.1 and 7.1 in WAVE order, after
# ITU-R BS.775 (centre and surrounds at −3 dB, the low-frequency channel left out).
_DOWNMIX: dict[int, tuple[tuple[float, ...], tuple[float, ...]]] = {
    1: ((1,), (1,)),
    2: ((1, 0), (0, 1)),
    3: ((1, 0, _H), (0, 1, _H)),
    4: ((1, 0, _H, 0), (0, 1, 0, _H)),
    5: ((1, 0, _H, _H, 0), (0, 1, _H, 0, _H)),
    6: ((1, 0, _H, 0, _H, 0), (0, 1, _H, 0, 0, _H)),
    7: ((1, 0, _H, 0, 0.5, _H, 0), (0, 1, _H, 0, 0.5, 0, _H)),
    8: ((1, 0, _H, 0, _H, 0, _H, 0), (0, 1, _H, 0, 0, _H, 0, _H)),
}


@dataclass(frozen=True)
class Segment:
    """One clip cut from a file.

    Attributes:
        audio_AS: float32 `(2, frames)`, not padded.
        start_s: where it begins in the file, seconds.
        loudness: LUFS before normalisation.
    """

    audio_AS: NDArray[np.float32]
    start_s: float
    loudness: float

    @property
    def frames(self) -> int:
        """True length, samples a channel."""
        return int(self.audio_AS.shape[1])


def condition(waveform: Waveform, audio: AudioConfig, data: DataConfig) -> list[Segment]:
    """Cut a file into clips of at most `audio.samples` and bring each to the configured loudness.

    A file that holds more than `data.max_segments` clips gives that many, spread evenly over it.

    Raises:
        Refused: silent, or too short once the silence at its edges is gone.
    """
    threshold = 10 ** (data.silence_dbfs / 20)
    stereo_AS = _without_offset(to_stereo(waveform.audio_AS), threshold)
    first, last = _sounding(stereo_AS, threshold)
    rate = waveform.sample_rate
    if last - first < data.min_seconds * rate:
        raise Refused(Reason.TOO_SHORT, f"{(last - first) / rate:.3f} s of sound, less than {data.min_seconds} s")
    segments: list[Segment] = []
    for start, stop in _cuts(first, last, audio.samples * rate / audio.sample_rate, data, rate):
        piece_AS = stereo_AS[:, start:stop]
        if peak_of(piece_AS) < threshold:
            continue  # a pause within a long file
        piece_AS = _resample(piece_AS, rate, audio.sample_rate)[:, : audio.samples]
        faded_AS = _faded(piece_AS, audio.sample_rate, fade_in=start > first)
        levelled_AS, loudness = _levelled(faded_AS, audio.sample_rate, data.loudness_lufs, data.peak_dbfs)
        segments.append(Segment(levelled_AS, start / rate, loudness))
    if not segments:
        raise Refused(Reason.SILENT, f"every clip cut from it peaks below {data.silence_dbfs} dBFS")
    loudest = max(segment.loudness for segment in segments)
    return [segment for segment in segments if segment.loudness > loudest - FADED_LU]


def to_stereo(audio_AS: NDArray[np.float32]) -> NDArray[np.float32]:
    """`(2, S)` of 1 to 8 channels in WAVE order; mono goes to both sides at full level."""
    channels = audio_AS.shape[0]
    if channels == 2:
        return audio_AS
    if channels not in _DOWNMIX:
        raise Refused(Reason.BAD_CHANNELS, f"{channels} channels, not 1 to {max(_DOWNMIX)}")
    return np.asarray(_DOWNMIX[channels], np.float32) @ audio_AS


def _without_offset(audio_AS: NDArray[np.float32], threshold: float) -> NDArray[np.float32]:
    """A constant offset, as cheap converters add it, is removed: it would sound as a click at both ends.

    The median finds it without being moved by a short loud sound, as the mean is.
    """
    stride = max(1, audio_AS.shape[1] >> 14)
    offset_A = np.median(audio_AS[:, ::stride], axis=1, keepdims=True).astype(np.float32)
    return audio_AS - offset_A if np.abs(offset_A).max() >= threshold else audio_AS


def _sounding(audio_AS: NDArray[np.float32], threshold: float) -> tuple[int, int]:
    """First sample at or above the threshold on any channel, and one past the last."""
    loud_S = np.any(np.abs(audio_AS) >= threshold, axis=0)
    first = int(loud_S.argmax())
    if not loud_S[first]:
        peak = peak_of(audio_AS)
        level = f"{20 * math.log10(peak):.1f} dBFS" if peak > 0 else "digital silence"
        raise Refused(Reason.SILENT, f"its peak is {level}")
    return first, len(loud_S) - int(loud_S[::-1].argmax())


def _cuts(first: int, last: int, clip: float, data: DataConfig, rate: int) -> list[tuple[int, int]]:
    """(start, stop) of each clip in `first:last`, in samples of the file; `clip` is a clip's length there."""
    length = last - first
    whole, rest = divmod(length, clip)
    keep_rest = rest >= max(data.min_seconds * rate, TAIL_FRACTION * clip) or not whole
    count = int(whole) + bool(keep_rest and rest)
    if count > data.max_segments:
        spread = np.linspace(first, last - clip, data.max_segments)
        return [(round(start), round(start + clip)) for start in spread.tolist()]
    return [(first + round(i * clip), min(last, first + round((i + 1) * clip))) for i in range(count)]


def _resample(audio_AS: NDArray[np.float32], rate: int, wanted: int) -> NDArray[np.float32]:
    if rate == wanted:
        return audio_AS
    import soxr

    return np.ascontiguousarray(soxr.resample(audio_AS.T, rate, wanted, quality="HQ").T, dtype=np.float32)


def _faded(audio_AS: NDArray[np.float32], rate: int, *, fade_in: bool) -> NDArray[np.float32]:
    """Fade the end, where padding follows, and the start if it was cut from running sound (an attack stays)."""
    length = min(round(FADE_SECONDS * rate), audio_AS.shape[1] // 4)
    ramp = (0.5 - 0.5 * np.cos(np.pi * (np.arange(length) + 0.5) / length)).astype(np.float32)
    faded_AS = audio_AS.copy()
    faded_AS[:, audio_AS.shape[1] - length :] *= ramp[::-1]
    if fade_in:
        faded_AS[:, :length] *= ramp
    return faded_AS


def _levelled(
    audio_AS: NDArray[np.float32], rate: int, lufs: float, peak_dbfs: float
) -> tuple[NDArray[np.float32], float]:
    """Audio at `lufs`, or as near as its peak may go, and its loudness before.

    No limiter: a drum hit whose peak would pass the ceiling stays quieter instead of being bent.
    """
    peak = peak_of(audio_AS)
    ceiling = 10 ** (peak_dbfs / 20) / peak
    # Measured at full scale, so that the gate of −70 LUFS does not swallow a quiet recording; a clip shorter than a
    # block as one block, silence after it.
    full_AS = np.divide(audio_AS, peak, dtype=np.float64)
    if missing := max(0, math.ceil(BLOCK_SECONDS * rate) - audio_AS.shape[1]):
        full_AS = np.pad(full_AS, ((0, 0), (0, missing)))
    measured = max(integrated_loudness(full_AS, rate), ABSOLUTE_LUFS)
    loudness = measured + 20 * math.log10(peak)
    gain = min(10 ** ((lufs - loudness) / 20), ceiling)
    return audio_AS * np.float32(gain), loudness
