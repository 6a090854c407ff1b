"""Real scores as plain notes: Irish and American fiddle tunes and Bach's chorales from music21's corpus.

Only public-domain music is used: F. O'Neill's *Music of Ireland* (1903), *Ryan's Mammoth Collection*
(1883) and J. S. Bach's four-part chorales. A score is accepted only where its key is beyond doubt (the
stated key, confirmed by the final note and by the third of the scale), because every caption states it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

from sonarc.contracts.errors import SourceError
from sonarc.demo.cache import cache_folder

log = logging.getLogger(__name__)

# Raised whenever parsing below changes what it returns, so that cached scores are made anew.
PARSER_VERSION = 1

MODES = ("major", "minor", "dorian", "mixolydian")
# Quarter notes in a beat, by time signature.
BEAT_QUARTERS = {
    "2/4": 1.0, "3/4": 1.0, "4/4": 1.0, "2/2": 2.0, "3/8": 1.5, "6/8": 1.5, "9/8": 1.5, "12/8": 1.5,
}  # fmt: skip
MINIMUM_BEATS = 24
INCIPIT_STEPS = 12
MAXIMUM_REST_SHARE = 0.12

_TONIC_PC = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_ABC_MODE = {
    "": "major", "maj": "major", "major": "major", "m": "minor", "min": "minor", "minor": "minor",
    "dor": "dorian", "dorian": "dorian", "mix": "mixolydian", "mixolydian": "mixolydian",
}  # fmt: skip
_ABC_KEY = re.compile(r"^([A-G])([b#]?)\s*([A-Za-z]*)\s*$")
_FORMS = {
    "reel": "reel", "jig": "jig", "double jig": "jig", "single jig": "jig", "slip jig": "slip jig",
    "slipjig": "slip jig", "hornpipe": "hornpipe", "strathspey": "strathspey", "air": "air",
    "waltz": "waltz", "march": "march", "highland fling": "highland fling", "slide": "slide",
    "clog": "clog",
}  # fmt: skip
_CHORALE_PARTS = ("Soprano", "Alto", "Tenor", "Bass")


@dataclass(frozen=True)
class Note:
    """One sounding note: onset and length in quarter notes, MIDI pitch, and the part it belongs to."""

    onset: float
    length: float
    pitch: int
    part: int


@dataclass(frozen=True)
class Score:
    """A score as the renderer needs it.

    Attributes:
        id: its name, stable for ever.
        form: "fiddle tune", "reel", "jig", ..., or "chorale".
        tonic: pitch class of the tonic, 0 = C.
        mode: one of `MODES`.
        beat: quarter notes in one beat.
        starts: onsets (quarter notes) of beats on which a clip may begin: a note begins there too.
        parts: number of parts, 1 for a tune and 4 for a chorale.
        notes: by onset, then part.
    """

    id: str
    title: str
    form: str
    author: str
    tonic: int
    mode: str
    beat: float
    starts: tuple[float, ...]
    parts: int
    notes: tuple[Note, ...]

    @property
    def end(self) -> float:
        """Where the last note stops, in quarter notes."""
        return max(note.onset + note.length for note in self.notes)

    @property
    def melody(self) -> str:
        """Names the tune by its first steps: one tune in two books, or under two chorales, has one name."""
        pitches = [note.pitch for note in self.notes if note.part == 0][: INCIPIT_STEPS + 1]
        steps = ",".join(str(after - before) for before, after in pairwise(pitches))
        return f"melody/{hashlib.sha256(steps.encode()).hexdigest()[:12]}"


def corpus_folder() -> Path:
    """music21's corpus, found without importing music21."""
    spec = importlib.util.find_spec("music21")
    folder = Path(spec.origin).parent / "corpus" if spec and spec.origin else None
    if folder is None or not (folder / "oneills1850").is_dir():
        raise SourceError(
            "The scores of music21 are not installed.",
            "Install music21 with its corpus (`pip install music21`), or use only the recorded source.",
        )
    return folder


@cache
def score_ids() -> tuple[str, ...]:
    """Every candidate score, in one fixed shuffled order: three tunes, then a chorale, while both last."""
    corpus = corpus_folder()
    tunes = [
        f"{book}/{path.stem}#{number}"
        for book in ("oneills1850", "ryansMammoth")
        for path in sorted((corpus / book).glob("*.abc"))
        for number, text in _abc_tunes(path).items()
        if _promising(text)
    ]
    chorales = [f"bach/{path.stem}" for path in sorted((corpus / "bach").glob("*.mxl"))]
    # Two transcriptions of one number of one book are one tune.
    tunes = list({(name.split("/")[0], _tune_name(name)): name for name in tunes}.values())
    tunes.sort(key=_shuffle_key)
    chorales.sort(key=_shuffle_key)
    ordered: list[str] = []
    while tunes or chorales:
        ordered += tunes[:3] + chorales[:1]
        del tunes[:3], chorales[:1]
    return tuple(ordered)


def parse_scores(ids: Sequence[str]) -> list[Score | None]:
    """Parse scores by id, or read them from the cache; None for one whose key or metre is not exact."""
    folder = cache_folder(f"scores/v{PARSER_VERSION}-music21-{version('music21')}")
    return [_cached(score_id, folder) for score_id in ids]


def _tune_name(score_id: str) -> str:
    """What names a tune within its book: its number in O'Neill's, its file in Ryan's."""
    book, rest = score_id.split("/")
    file, number = rest.split("#")
    return number.lstrip("0") if book == "oneills1850" else file


def _shuffle_key(score_id: str) -> str:
    # Salted: a dataset splits by the plain hash of the group, and the first scores in that order would all
    # fall into one split.
    return hashlib.sha256(f"order {score_id}".encode()).hexdigest()


def _cached(score_id: str, folder: Path) -> Score | None:
    path = folder / f"{re.sub('[^A-Za-z0-9.-]', '_', score_id)}.json"
    try:
        return _from_json(json.loads(path.read_text()))
    except (OSError, ValueError, KeyError, TypeError):
        score = parse_score(score_id)
        # Named by process: several workers may parse the same score at the same time.
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps(None if score is None else _to_json(score)))
        temporary.replace(path)
        return score


def _to_json(score: Score) -> dict[str, Any]:
    facts = asdict(score)
    facts["notes"] = [[n.onset, n.length, n.pitch, n.part] for n in score.notes]
    return facts


def _from_json(facts: dict[str, Any] | None) -> Score | None:
    if facts is None:
        return None
    notes = tuple(Note(float(o), float(d), int(p), int(part)) for o, d, p, part in facts["notes"])
    return Score(**{**facts, "notes": notes, "starts": tuple(facts["starts"])})


def parse_score(score_id: str) -> Score | None:
    """Parse one score of the corpus; None where its key, metre or length leaves any doubt."""
    from music21.exceptions21 import Music21Exception

    try:
        return _parse_chorale(score_id) if score_id.startswith("bach/") else _parse_tune(score_id)
    except (Music21Exception, ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        # Transcriptions by many hands: some do not parse, and there are plenty of others.
        log.debug("score %s skipped: %s", score_id, error)
        return None


def _abc_tunes(path: Path) -> dict[str, str]:
    """The tunes of an ABC file by reference number; the first where a number comes twice."""
    tunes: dict[str, str] = {}
    text = path.read_text(encoding="utf-8", errors="replace").replace("\r\n", "\n")
    for block in re.split(r"^(?=X:)", text, flags=re.MULTILINE)[1:]:
        tune = re.split(r"\n\s*\n", block.strip())[0]
        tunes.setdefault(tune.split("\n", 1)[0][2:].strip(), tune + "\n")
    return tunes


def _field(text: str, letter: str) -> str:
    found = re.search(rf"^{letter}:(.*)$", text, flags=re.MULTILINE)
    return found.group(1).strip() if found else ""


def _promising(text: str) -> bool:
    """A cheap look at the header: one voice, one key, one metre, a mode we can name."""
    key = _ABC_KEY.match(_field(text, "K"))
    once = all(len(re.findall(rf"(?:^|\[){letter}:", text, flags=re.MULTILINE)) == 1 for letter in "KM")
    return bool(key and key.group(3).lower() in _ABC_MODE and once and "\nV:" not in text)


def _parse_tune(score_id: str) -> Score | None:
    from music21 import converter

    name, number = score_id.split("#")
    text = _abc_tunes(corpus_folder() / f"{name}.abc")[number]
    key = _ABC_KEY.match(_field(text, "K"))
    if key is None:
        return None
    tonic = (_TONIC_PC[key.group(1)] + {"": 0, "b": -1, "#": 1}[key.group(2)]) % 12
    mode = _ABC_MODE[key.group(3).lower()]
    part = converter.parseData(text, format="abc").parts[0]
    notes = _notes(part, 0)
    form = _FORMS.get(_field(text, "R").lower(), "fiddle tune")
    return _accepted(score_id, _field(text, "T").title(), form, "traditional", tonic, mode, [part], notes)


def _parse_chorale(score_id: str) -> Score | None:
    from music21 import converter, key

    reader = converter.Converter()
    # The other readers of music21 keep pickles in a shared temporary folder; this one never does.
    reader.parseFileNoPickle(str(corpus_folder() / f"{score_id}.mxl"))
    score = reader.stream
    parts = [part for part in score.parts if part.partName in _CHORALE_PARTS]
    if len(parts) != 4 or len(score.parts) != 4:
        return None
    signatures = list(parts[0].flatten().getElementsByClass(key.KeySignature))
    if len({signature.sharps for signature in signatures}) != 1:
        return None
    major = (7 * signatures[0].sharps) % 12
    notes = [note for index, part in enumerate(parts) for note in _notes(part, index)]
    # The last bass note is the tonic, in the signature's major key or in its relative minor.
    final = max((n for n in notes if n.part == 3), key=lambda n: n.onset).pitch % 12
    if final not in (major, (major + 9) % 12):
        return None
    mode = "major" if final == major else "minor"
    stated = signatures[0]
    if isinstance(stated, key.Key) and (stated.tonic.pitchClass, stated.mode) != (final, mode):
        return None
    title = score_id.split("/")[1].upper().replace("BWV", "BWV ")
    return _accepted(score_id, title, "chorale", "Johann Sebastian Bach", final, mode, parts, notes)


def _notes(part: Any, index: int) -> list[Note]:
    """The notes of a music21 part, tied ones joined, grace notes and chord symbols left out."""
    from music21 import harmony

    notes: list[Note] = []
    held: dict[int, int] = {}
    for element in part.flatten().notes:
        if isinstance(element, harmony.ChordSymbol) or element.quarterLength <= 0:
            continue
        onset, length = round(float(element.offset), 4), round(float(element.quarterLength), 4)
        for member in element.notes if element.isChord else (element,):
            pitch = member.pitch.midi
            continues = member.tie is not None and member.tie.type in ("continue", "stop")
            if continues and pitch in held:
                first = notes[held[pitch]]
                notes[held[pitch]] = replace(first, length=round(onset + length - first.onset, 4))
            else:
                held[pitch] = len(notes)
                notes.append(Note(onset, length, pitch, index))
    return notes


def _accepted(
    score_id: str, title: str, form: str, author: str, tonic: int, mode: str, parts: list[Any], notes: list[Note]
) -> Score | None:
    from music21 import meter, stream

    notes = sorted(notes, key=lambda n: (n.onset, n.part, n.pitch))
    metres = {m.ratioString for m in parts[0].flatten().getElementsByClass(meter.TimeSignature)}
    if len(metres) != 1 or (metre := metres.pop()) not in BEAT_QUARTERS or not notes:
        return None
    beat = BEAT_QUARTERS[metre]
    if not _key_confirmed(tonic, mode, notes, len(parts)):
        return None
    numerator, denominator = (int(n) for n in metre.split("/"))
    bar = 4.0 * numerator / denominator
    onsets: dict[float, int] = {}
    for note in notes:
        onsets[note.onset] = onsets.get(note.onset, 0) + 1
    starts = [
        onset
        for measure in parts[0].getElementsByClass(stream.Measure)
        if abs(float(measure.duration.quarterLength) - bar) < 1e-6
        for k in range(round(bar / beat))
        if onsets.get(onset := round(float(measure.offset) + k * beat, 4), 0) >= len(parts)
    ]
    end = max(note.onset + note.length for note in notes)
    sounding = sum(note.length for note in notes if note.part == 0)
    if end / beat < MINIMUM_BEATS or len(starts) < MINIMUM_BEATS // 3:
        return None
    if sounding < (1 - MAXIMUM_REST_SHARE) * end:
        return None
    return Score(score_id, title, form, author, tonic, mode, beat, tuple(starts), len(parts), tuple(notes))


def _key_confirmed(tonic: int, mode: str, notes: list[Note], parts: int) -> bool:
    """Whether the music ends on the stated tonic and its third is that of the stated mode."""
    lowest = parts - 1
    final = max((n for n in notes if n.part == lowest), key=lambda n: n.onset).pitch % 12
    if final != tonic:
        return False
    length = [0.0] * 12
    for note in notes:
        length[(note.pitch - tonic) % 12] += note.length
    major_third, minor_third = length[4], length[3]
    if mode in ("major", "mixolydian"):
        return major_third > 2 * minor_third
    return minor_third > 2 * major_third
