"""Sentences for clips made from scores: several natural phrasings, each of them true.

A phrasing states some of the clip's facts; the tempo is left out wherever it is not a fact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sonarc.demo.plan import ScoreClip

PHRASINGS = 4


@dataclass(frozen=True)
class _Voice:
    """How English speaks of an instrument: "played on a flute", "a flute", "solo flute"."""

    by: str
    noun: str


_VOICES = {
    "violin": _Voice("played on a violin", "violin"),
    "piano": _Voice("played on a piano", "piano"),
    "harpsichord": _Voice("played on a harpsichord", "harpsichord"),
    "church organ": _Voice("played on a church organ", "church organ"),
    "accordion": _Voice("played on an accordion", "accordion"),
    "nylon guitar": _Voice("played on a nylon-string guitar", "nylon-string guitar"),
    "harp": _Voice("played on a harp", "harp"),
    "cello": _Voice("played on a cello", "cello"),
    "flute": _Voice("played on a flute", "flute"),
    "recorder": _Voice("played on a recorder", "recorder"),
    "clarinet": _Voice("played on a clarinet", "clarinet"),
    "oboe": _Voice("played on an oboe", "oboe"),
    "trumpet": _Voice("played on a trumpet", "trumpet"),
    "music box": _Voice("played on a music box", "music box"),
    "marimba": _Voice("played on a marimba", "marimba"),
    "string ensemble": _Voice("played by a string ensemble", "string ensemble"),
    "choir": _Voice("sung by a choir", "choir"),
}
_ROOMS = {
    "hall": ("in a large hall", "with the reverb of a large hall", "echoing in a concert hall"),
    "dry": ("dry and close", "recorded close, without reverb", "with a dry, close sound"),
}


def concept(clip: ScoreClip) -> dict[str, Any]:
    """The facts behind a clip's captions; tempo and bpm only where four beats or more fit."""
    facts: dict[str, Any] = {
        "kind": "score",
        "form": clip.form,
        "instrument": clip.instrument,
        "key": clip.key,
        "register": clip.register,
        "room": clip.room,
    }
    if clip.tempo:
        facts |= {"tempo": clip.tempo, "bpm": clip.bpm}
    return facts


def captions(clip: ScoreClip) -> list[str]:
    """Four different phrasings of a clip's facts, drawn by its seed and number."""
    rng = np.random.default_rng([clip.seed, clip.index, 7])
    rooms = _ROOMS[clip.room]
    room = rooms[int(rng.integers(len(rooms)))]
    voice = _VOICES[clip.instrument]
    key, noun, form = clip.key, voice.noun, clip.form
    work = "four-part chorale" if form == "chorale" else form
    paced = f"{clip.tempo} {form}" if clip.tempo else form
    register = f"in the {clip.register} register"
    phrasings = [
        f"{_a(paced)} in {key} {voice.by}, {room}",
        f"{_a(noun)} {'sings' if noun == 'choir' else 'plays'} {_a(paced)} in {key}, {register}",
        f"{noun}, {paced}, {key}, {room}",
        f"{_a(work)} {voice.by} {register}, {key}",
        f"{_a(form)} {room}: {noun} in {key}",
        f"{_a(paced)} for {noun}, {clip.register} in pitch, {room}",
    ]
    if clip.tempo:
        phrasings += [
            f"{_a(form)} in {key} at {clip.bpm} beats per minute, {voice.by}",
            f"{noun} {form} at {clip.bpm} bpm in {key}, {clip.tempo} tempo, {room}",
            f"at {_a(clip.tempo)} tempo, {_a(noun)} {'singing' if noun == 'choir' else 'playing'} {_a(work)} {room}",
        ]
    chosen = rng.permutation(len(phrasings))[:PHRASINGS]
    return [phrasings[i] for i in chosen]


def _a(phrase: str) -> str:
    return f"{'an' if phrase[0] in 'aeio' else 'a'} {phrase}"
