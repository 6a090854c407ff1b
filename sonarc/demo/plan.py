"""Which clip is made from which score: a pure function of (seed, index), so that more clips extend fewer.

A clip is (score, starting beat, instrument, transposition, tempo, room), and with it every fact that its
captions state. It carries its own notes, so that it renders anywhere without the corpus.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sonarc.contracts.errors import SourceError
from sonarc.demo.scores import Score, parse_scores, score_ids

# Works like `map` over chunks of work; a job passes its own to spread them over workers.
ChunkMap = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]

# Raised whenever planning, rendering or phrasing below makes something else of the same clip.
PLAN_VERSION = 2

CLIPS_PER_SCORE = 8
SCORES_PER_CHUNK = 16
ATTEMPTS = 400

TEMPI_BPM = (60, 66, 72, 80, 84, 88, 92, 100, 104, 108, 112, 116, 120, 126, 132, 138, 144, 152, 160)
TRANSPOSITIONS = (-5, -3, -2, 0, 0, 0, 2, 3, 5)
OCTAVES = (0, -12, 12, -24)
BEATS_FOR_A_TEMPO = 4
FASTEST_NOTES_PER_SECOND = 9.0
LONGEST_REST_SECONDS = 0.45
HALLS = 4


@dataclass(frozen=True)
class Instrument:
    """A General MIDI program (0-based) with its comfortable range as MIDI pitches."""

    name: str
    program: int
    lowest: int
    highest: int
    chorales: bool = False


INSTRUMENTS = (
    Instrument("violin", 40, 55, 96),
    Instrument("piano", 0, 33, 96, chorales=True),
    Instrument("harpsichord", 6, 36, 88, chorales=True),
    Instrument("church organ", 19, 36, 88, chorales=True),
    Instrument("accordion", 21, 41, 88, chorales=True),
    Instrument("nylon guitar", 24, 40, 79, chorales=True),
    Instrument("harp", 46, 36, 91, chorales=True),
    Instrument("cello", 42, 36, 72),
    Instrument("flute", 73, 60, 93),
    Instrument("recorder", 74, 60, 91),
    Instrument("clarinet", 71, 50, 86),
    Instrument("oboe", 68, 58, 84),
    Instrument("trumpet", 56, 54, 81),
    Instrument("music box", 10, 60, 98),
    Instrument("marimba", 12, 45, 88),
    Instrument("string ensemble", 48, 36, 88, chorales=True),
    Instrument("choir", 52, 40, 81, chorales=True),
)

_FLAT_SIDE = ("C", "D flat", "D", "E flat", "E", "F", "F sharp", "G", "A flat", "A", "B flat", "B")
_SHARP_SIDE = ("C", "C sharp", "D", "E flat", "E", "F", "F sharp", "G", "G sharp", "A", "B flat", "B")


@dataclass(frozen=True)
class Sound:
    """One note to play: sample it starts on, samples it is held, MIDI pitch, velocity (0-127), part."""

    start: int
    held: int
    pitch: int
    velocity: int
    part: int


@dataclass(frozen=True)
class ScoreClip:
    """One clip to render, and all that is true of it.

    Attributes:
        index: its number among the clips made from scores.
        seed: the seed it was drawn with; captions are drawn with it too.
        score: the score's id; also its group.
        tonic: pitch class of the tonic as it sounds, 0 = C.
        bpm: beats per minute as played.
        tempo: "slow", "moderate" or "fast"; "" where fewer than four beats fit in the clip.
        register: "low", "middle" or "high", from the mean pitch of the notes that sound.
        room: "hall" or "dry"; `hall` says which of the halls.
        parts: 1 for a tune, 4 for a chorale.
        samples: length of the clip at `sample_rate` (Hz).
    """

    index: int
    seed: int
    score: str
    title: str
    author: str
    form: str
    instrument: str
    program: int
    tonic: int
    mode: str
    bpm: int
    tempo: str
    register: str
    room: str
    hall: int
    mirrored: bool
    parts: int
    samples: int
    sample_rate: int
    sounds: tuple[Sound, ...]

    @property
    def key(self) -> str:
        """The key as it sounds, such as "B flat major"."""
        return key_name(self.tonic, self.mode)

    @property
    def id(self) -> str:
        """The clip's name: its number and a digest of everything that decides its audio and its captions."""
        facts = json.dumps([PLAN_VERSION, asdict(self)], sort_keys=True)
        return f"{self.index:06d}-{hashlib.sha256(facts.encode()).hexdigest()[:10]}"


def key_name(tonic: int, mode: str) -> str:
    """Name a key by pitch class (0 = C) and mode, spelled as musicians do."""
    names = _FLAT_SIDE if mode in ("major", "mixolydian") else _SHARP_SIDE
    return f"{names[tonic % 12]} {mode}"


def register_of(pitches: Sequence[int]) -> str:
    """Low below A3, high from C5 up, middle between, by the mean MIDI pitch."""
    mean = sum(pitches) / len(pitches)
    return "low" if mean < 57 else "high" if mean >= 72 else "middle"


def tempo_of(bpm: int, seconds: float) -> str:
    """Slow below 96 beats a minute, fast from 132; "" where four beats do not fit in `seconds`."""
    if seconds * bpm / 60 < BEATS_FOR_A_TEMPO:
        return ""
    return "slow" if bpm < 96 else "fast" if bpm >= 132 else "moderate"


def plan_scores(
    clips: int,
    samples: int,
    seed: int,
    *,
    sample_rate: int = 44_100,
    chunk_map: ChunkMap = map,
) -> list[ScoreClip]:
    """Draw the first `clips` clips of the endless list that (samples, seed, sample_rate) names.

    Args:
        clips: how many.
        samples: length of each, at `sample_rate` Hz.
        seed: another seed is another list.
        chunk_map: works like `map`; a job passes its own to parse chunks of scores in parallel.

    Raises:
        SourceError: the corpus is missing, or has not enough scores for so many clips.
    """
    needed = -(-clips // CLIPS_PER_SCORE)
    scores = _first_scores(needed, chunk_map)
    if len(scores) < needed:
        most = len(scores) * CLIPS_PER_SCORE
        raise SourceError(f"{clips} clips were asked for, but the scores give {most}.", f"Ask for at most {most}.")
    taken: set[tuple[object, ...]] = set()
    return [_draw(scores[index // CLIPS_PER_SCORE], index, samples, seed, sample_rate, taken) for index in range(clips)]


def _first_scores(needed: int, chunk_map: ChunkMap) -> list[Score]:
    ids, scores, position = score_ids(), list[Score](), 0
    melodies: set[str] = set()
    while len(scores) < needed and position < len(ids):
        # About three candidates in four are accepted.
        batch = ids[position : position + max((needed - len(scores)) * 4 // 3, 1)]
        chunks = [list(batch[i : i + SCORES_PER_CHUNK]) for i in range(0, len(batch), SCORES_PER_CHUNK)]
        for score in (score for chunk in chunk_map(parse_scores, chunks) for score in chunk if score is not None):
            # The same melody stands in several books; only its first copy counts, so that no split holds another's.
            if score.melody not in melodies:
                melodies.add(score.melody)
                scores.append(score)
        position += len(batch)
    return scores[:needed]


def _draw(
    score: Score, index: int, samples: int, seed: int, sample_rate: int, taken: set[tuple[object, ...]]
) -> ScoreClip:
    """Draw until a clip is playable, starts on a note, has no long rest, and is not one already taken."""
    seconds = samples / sample_rate
    instruments = [i for i in INSTRUMENTS if score.parts == 1 or i.chorales]
    onsets = [note.onset for note in score.notes]
    rng = np.random.default_rng([seed, index])

    def pick(count: int) -> int:
        return int(rng.integers(count))

    for _ in range(ATTEMPTS):
        bpm = TEMPI_BPM[pick(len(TEMPI_BPM))]
        start = score.starts[pick(len(score.starts))]
        instrument = instruments[pick(len(instruments))]
        semitones = TRANSPOSITIONS[pick(len(TRANSPOSITIONS))]
        room, hall, mirrored = ("hall", "dry")[pick(2)], pick(HALLS), bool(pick(2))

        samples_per_quarter = 60.0 * sample_rate / (bpm * score.beat)
        stop = start + samples / samples_per_quarter
        if stop > score.end:
            continue
        window = score.notes[bisect_left(onsets, start) : bisect_left(onsets, stop)]
        shifts = _playable(instrument, [note.pitch + semitones for note in window])
        if not shifts:
            continue
        shift = semitones + shifts[pick(len(shifts))]
        sounds = tuple(
            Sound(
                start=round((note.onset - start) * samples_per_quarter),
                # Just short of legato, so that a repeated note is heard as two.
                held=round(0.94 * note.length * samples_per_quarter),
                pitch=note.pitch + shift,
                velocity=100 if (note.onset - start) % score.beat < 1e-3 else 84,
                part=note.part,
            )
            for note in window
        )
        pitches = [sound.pitch for sound in sounds]
        identity = (instrument.name, bpm, room, sounds)
        if (
            identity in taken
            or len({sound.start for sound in sounds}) > FASTEST_NOTES_PER_SECOND * seconds
            or _longest_rest(sounds, samples) > LONGEST_REST_SECONDS * sample_rate
        ):
            continue
        taken.add(identity)
        return ScoreClip(
            index=index,
            seed=seed,
            score=score.id,
            title=score.title,
            author=score.author,
            form=score.form,
            instrument=instrument.name,
            program=instrument.program,
            tonic=(score.tonic + shift) % 12,
            mode=score.mode,
            bpm=bpm,
            tempo=tempo_of(bpm, seconds),
            register=register_of(pitches),
            room=room,
            hall=hall,
            mirrored=mirrored,
            parts=score.parts,
            samples=samples,
            sample_rate=sample_rate,
            sounds=sounds,
        )
    raise SourceError(
        f"Score {score.id!r} gives no clip of {seconds:.1f} s that is not already taken.",
        "Ask for shorter clips or fewer of them.",
    )


def _playable(instrument: Instrument, pitches: Sequence[int]) -> list[int]:
    """The octave shifts (semitones) that bring all pitches into the instrument's range."""
    lowest, highest = min(pitches), max(pitches)
    return [s for s in OCTAVES if lowest + s >= instrument.lowest and highest + s <= instrument.highest]


def _longest_rest(sounds: Sequence[Sound], samples: int) -> int:
    """The longest stretch in which no note is held, in samples."""
    silent_from, longest = 0, 0
    for sound in sounds:
        longest = max(longest, sound.start - silent_from)
        silent_from = max(silent_from, sound.start + sound.held)
    return max(longest, samples - silent_from)
