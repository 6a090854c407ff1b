"""From planned notes to stereo audio: a sampled instrument, panned parts, and a hall.

Everything after the synthesiser is elementwise: no dot product or sum whose order depends on the width
of the machine's vector units, so that the same clip has the same bytes on another machine.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sonarc.contracts.errors import SourceError
from sonarc.demo.plan import ScoreClip

Audio = npt.NDArray[np.float32]

PEAK = 0.8
FADE_SECONDS = 0.012
SYNTH_GAIN_DB = -6.0
WET = np.float32(0.55)
# MIDI pan positions (0 left, 64 centre, 127 right) of soprano, alto, tenor and bass.
CHORALE_PAN = (14, 48, 80, 114)
_PAN, _ALL_SOUND_OFF = 10, 120


def soundfont_path() -> Path:
    """The General MIDI soundfont that pretty_midi ships, found without importing pretty_midi."""
    spec = importlib.util.find_spec("pretty_midi")
    path = Path(spec.origin).parent / "TimGM6mb.sf2" if spec and spec.origin else None
    if path is None or not path.is_file():
        raise SourceError(
            "The soundfont TimGM6mb.sf2 is not installed.",
            "Install pretty_midi without its dependencies (`pip install --no-deps pretty_midi`), "
            "or use only the recorded source.",
        )
    return path


def render_clip(clip: ScoreClip) -> npt.NDArray[np.int16]:
    """Render a clip: int16 samples, shape (samples, 2), peak 0.8 of full scale, no silence at the start."""
    dry_SA = _play(clip)
    mix_SA = dry_SA + WET * _hall(dry_SA, clip.hall, clip.sample_rate) if clip.room == "hall" else dry_SA
    fade = round(FADE_SECONDS * clip.sample_rate)
    mix_SA[-fade:] *= np.linspace(1.0, 0.0, fade, dtype=np.float32)[:, None]
    peak = np.abs(mix_SA).max()
    if not peak > 1e-4:
        raise SourceError(f"Clip {clip.id} of {clip.score} rendered silent.", "Reinstall tinysoundfont.")
    return np.rint(mix_SA * np.float32(PEAK * 32767 / peak)).astype(np.int16)


@cache
def _synth(sample_rate: int) -> Any:
    try:
        from tinysoundfont import Synth
    except ImportError:
        raise SourceError(
            "tinysoundfont is not installed.",
            "Install it without its dependencies (`pip install --no-deps tinysoundfont`), "
            "or use only the recorded source.",
        ) from None
    synth = Synth(gain=SYNTH_GAIN_DB, samplerate=sample_rate)
    synth.sfload(str(soundfont_path()))
    return synth


def _play(clip: ScoreClip) -> Audio:
    synth = _synth(clip.sample_rate)
    _silence(synth)
    for part in range(clip.parts):
        pan = CHORALE_PAN[part] if clip.parts > 1 else 64
        synth.program_change(part, clip.program)
        synth.control_change(part, _PAN, 127 - pan if clip.mirrored else pan)
    events = [(s.start, 1, s.part, s.pitch, s.velocity) for s in clip.sounds]
    events += [(s.start + s.held, 0, s.part, s.pitch, 0) for s in clip.sounds]
    out_SA = np.zeros((clip.samples, 2), dtype=np.float32)
    position = 0
    # At one instant notes end before others begin, or a repeated note would be cut off.
    for when, on, part, pitch, velocity in sorted(events):
        if when >= clip.samples:
            break
        if when > position:
            out_SA[position:when] = _generate(synth, when - position)
            position = when
        if on:
            synth.noteon(part, pitch, velocity)
        else:
            synth.noteoff(part, pitch)
    out_SA[position:] = _generate(synth, clip.samples - position)
    return out_SA


def _generate(synth: Any, samples: int) -> Audio:
    return np.frombuffer(synth.generate_simple(samples), dtype=np.float32).reshape(samples, 2)


def _silence(synth: Any) -> None:
    """Let the previous clip die away completely: one clip must not colour the next."""
    for part in range(16):
        synth.control_change(part, _ALL_SOUND_OFF, 0)
    while np.any(_generate(synth, 4096)):
        pass


@cache
def _reflections(hall: int, sample_rate: int) -> tuple[tuple[tuple[int, np.float32], ...], ...]:
    """Delays (samples) and gains of a hall: early reflections, then a decay, apart for left and right."""
    rng = np.random.default_rng([hall, 1])
    decay_seconds = (1.3, 1.7, 2.1, 2.6)[hall]
    stages = []
    for earliest, latest, count, rate in ((0.006, 0.055, 9, 30.0), (0.03, 1.1, 26, 6.9 / decay_seconds)):
        for _ in ("left", "right"):
            spread = (np.arange(count) + rng.random(count)) / count
            delays = earliest + (latest - earliest) * spread
            gains = np.exp(-rate * (delays - earliest)) * np.where(rng.random(count) < 0.5, -1.0, 1.0)
            gains /= np.sqrt(np.sum(gains**2))
            stages.append(tuple((int(d * sample_rate), np.float32(g)) for d, g in zip(delays, gains, strict=True)))
    return tuple(stages)


def _hall(dry_SA: Audio, hall: int, sample_rate: int) -> Audio:
    """The sound of a hall alone: each early reflection feeds the decay, 234 echoes a channel."""
    wet_SA = np.empty_like(dry_SA)
    stages = _reflections(hall, sample_rate)
    for channel in (0, 1):
        near, far = dry_SA[:, channel], dry_SA[:, 1 - channel]
        heard = np.float32(0.7) * near + np.float32(0.3) * far
        early = _echoes(heard, stages[channel])
        early[1:] = np.float32(0.5) * (early[1:] + early[:-1])  # walls and air take the treble
        late = _echoes(early, stages[2 + channel])
        late[1:] = np.float32(0.5) * (late[1:] + late[:-1])
        wet_SA[:, channel] = np.float32(0.6) * early + late
    return wet_SA


def _echoes(x_S: Audio, taps: tuple[tuple[int, np.float32], ...]) -> Audio:
    out_S = np.zeros_like(x_S)
    for delay, gain in taps:
        if delay < len(x_S):
            out_S[delay:] += gain * x_S[: len(x_S) - delay]
    return out_S
