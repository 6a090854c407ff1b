"""Write the demo source folder: audio files and `captions.jsonl`, the form that ingest reads.

    audio/recorded/<name>.flac      recorded one-shots and loops, as their authors left them
    audio/scores/<id>.flac          rendered scores, 16-bit stereo
    audio/damaged/<name>.<ext>      a few files that are meant to be refused
    captions.jsonl                  a row a file: path, captions, concept, group, source, author, licence, url

Clip i is the same whatever number of clips is asked for, so a larger folder extends a smaller one, and a
second run keeps every file that is already there and whole.
"""

from __future__ import annotations

import io
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from sonarc.contracts.errors import SourceError, StoreError
from sonarc.demo import captions as phrasing
from sonarc.demo.plan import ChunkMap, ScoreClip, plan_scores
from sonarc.demo.recorded import Recording, locate_recordings
from sonarc.demo.render import render_clip, soundfont_path
from sonarc.demo.scores import corpus_folder

log = logging.getLogger(__name__)

SOURCES = ("recorded", "scores")
CLIPS_PER_CHUNK = 24
# Every so many clips one is a recording, as long as there are recordings left.
RECORDED_EVERY = 4

Progress = Callable[[int, int, str], None]


@dataclass
class DemoReport:
    """What `write_demo` made: rows by source, files kept from an earlier run, and notices to show."""

    folder: Path
    rows: dict[str, int] = field(default_factory=dict)
    kept: int = 0
    notices: list[str] = field(default_factory=list)

    @property
    def clips(self) -> int:
        """Clips that are meant to be accepted."""
        return sum(count for source, count in self.rows.items() if source != "damaged")


def write_demo(
    out: Path,
    *,
    clips: int,
    samples: int,
    sample_rate: int = 44_100,
    seed: int = 0,
    sources: Sequence[str] = SOURCES,
    recorded_limit: int | None = None,
    damaged: int = 5,
    chunk_map: ChunkMap = map,
    progress: Progress | None = None,
) -> DemoReport:
    """Write `clips` captioned clips, and `damaged` files that are not audio, into the folder `out`.

    Args:
        out: the folder; made if missing. Files already there and whole are kept.
        clips: number of clips; at 828 or more all recordings are among them, the rest are scores.
        samples: length of a rendered clip at `sample_rate` Hz. Recordings keep their own length and rate.
        seed: draws the scores' clips and the phrasing of their captions.
        sources: "recorded", "scores" or both. One that is missing is a notice in the report.
        recorded_limit: at most so many recordings; None for no limit.
        damaged: how many damaged files to plant.
        chunk_map: works like `map`; a job passes its own to parse and render chunks in parallel. The
            functions and chunks it is given can be pickled; chunks are rendered into `out`.
        progress: called with (done, total, what) as clips are finished.

    Raises:
        SourceError: no source can be had, or a source's name is unknown.
        StoreError: the folder cannot be written.
    """
    unknown = sorted(set(sources) - set(SOURCES))
    if unknown or not sources:
        choices = " and ".join(SOURCES)
        raise SourceError(f"Unknown demo source {unknown or list(sources)}.", f"Choose from {choices}.")
    report = DemoReport(out)
    recordings = _recordings(report)[:recorded_limit] if "recorded" in sources else []
    with_scores = "scores" in sources and _scores_installed(report)
    if not recordings and not with_scores:
        raise SourceError("No demo source can be had. " + " ".join(report.notices), "Install one of them.")
    count = min(clips if not with_scores else -(-clips // RECORDED_EVERY), len(recordings))
    try:
        rows = _write_recordings(out, recordings[:count], report)
        if with_scores:
            planned = plan_scores(clips - count, samples, seed, sample_rate=sample_rate, chunk_map=chunk_map)
            rows += _write_scores(out, planned, report, chunk_map, progress, done=count, total=clips)
        elif clips > count:
            report.notices.append(f"{clips} clips were asked for, but there are only {count} recordings.")
        rows += _write_damaged(out, damaged)
        _write_atomically(out / "captions.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
    except OSError as error:
        raise StoreError(
            f"The demo folder {str(out)!r} cannot be written: {error.strerror or error}.",
            "Free space or choose another folder.",
        ) from error
    for row in rows:
        report.rows[row["source"]] = report.rows.get(row["source"], 0) + 1
    for notice in report.notices:
        log.warning(notice)
    return report


def render_chunk(out: Path, chunk: Sequence[ScoreClip]) -> int:
    """Render clips into `out`, leaving those already there; how many were there."""
    kept = 0
    for clip in chunk:
        path = out / _score_path(clip)
        if _whole(path, clip.samples, clip.sample_rate):
            kept += 1
            continue
        buffer = io.BytesIO()
        soundfile.write(buffer, render_clip(clip), clip.sample_rate, format="FLAC", subtype="PCM_16")
        _write_atomically(path, buffer.getvalue())
    return kept


def _recordings(report: DemoReport) -> list[Recording]:
    try:
        return locate_recordings()
    except SourceError as error:
        report.notices.append(f"Recorded sounds are left out: {error}")
        return []


def _scores_installed(report: DemoReport) -> bool:
    try:
        corpus_folder()
        soundfont_path()
    except SourceError as error:
        report.notices.append(f"Rendered scores are left out: {error}")
        return False
    return True


def _score_path(clip: ScoreClip) -> str:
    return f"audio/scores/{clip.id}.flac"


def _whole(path: Path, samples: int, sample_rate: int) -> bool:
    try:
        info = soundfile.info(str(path))
    except (OSError, soundfile.LibsndfileError):
        return False
    return bool(info.frames == samples and info.samplerate == sample_rate)


def _write_recordings(out: Path, recordings: Sequence[Recording], report: DemoReport) -> list[dict[str, Any]]:
    rows = []
    for recording in recordings:
        path = f"audio/recorded/{recording.path.name}"
        target = out / path
        if target.is_file() and target.stat().st_size == recording.path.stat().st_size:
            report.kept += 1
        else:
            _write_atomically(target, recording.path.read_bytes())
        rows.append(
            {
                "path": path,
                "captions": list(recording.captions),
                "concept": recording.concept,
                "group": recording.group,
                "source": "recorded",
                "author": recording.author,
                "licence": "CC0-1.0",
                "url": recording.url,
            }
        )
    return rows


def _write_scores(
    out: Path,
    planned: Sequence[ScoreClip],
    report: DemoReport,
    chunk_map: ChunkMap,
    progress: Progress | None,
    *,
    done: int,
    total: int,
) -> list[dict[str, Any]]:
    chunks = [planned[i : i + CLIPS_PER_CHUNK] for i in range(0, len(planned), CLIPS_PER_CHUNK)]
    for chunk, kept in zip(chunks, chunk_map(partial(render_chunk, out), chunks), strict=True):
        report.kept += kept
        done += len(chunk)
        if progress:
            progress(done, total, "rendering scores")
    return [
        {
            "path": _score_path(clip),
            "captions": phrasing.captions(clip),
            "concept": phrasing.concept(clip),
            "group": clip.score,
            "source": "scores",
            "author": clip.author,
            "licence": "public domain",
            "url": f"music21:{clip.score}",
        }
        for clip in planned
    ]


def _write_damaged(out: Path, count: int) -> list[dict[str, Any]]:
    rows = []
    for index, (name, content) in zip(range(count), _damage(), strict=False):
        path = f"audio/damaged/{name}"
        _write_atomically(out / path, content)
        rows.append(
            {
                "path": path,
                "captions": ["a recording that cannot be used", "a damaged sound file"],
                "concept": {"kind": "damaged", "name": name},
                "group": f"damaged/{index}",
                "source": "damaged",
                "author": "Sonarc",
                "licence": "CC0-1.0",
                "url": "",
            }
        )
    return rows


def _damage() -> Iterator[tuple[str, bytes]]:
    """Endless files that are not usable audio, in five kinds by turns."""
    seconds, rate = 1.0, 44_100
    tone_S = (0.3 * np.sin(2 * np.pi * 220 * np.arange(int(seconds * rate)) / rate)).astype(np.float32)
    page = b"<!DOCTYPE html><html><body><h1>404 Not Found</h1></body></html>\n"
    kinds = (
        ("truncated", "flac", _encoded(tone_S, rate, "FLAC", "PCM_16")[:2000]),
        ("web-page", "wav", page),
        ("empty", "wav", b""),
        ("silent", "wav", _encoded(np.zeros_like(tone_S), rate, "WAV", "PCM_16")),
        # Not WAV: libsndfile writes the time of day into WAV files of floats, and the demo's bytes are its data.
        ("not-a-number", "au", _encoded(np.where(tone_S > 0.2, np.nan, tone_S), rate, "AU", "FLOAT")),
    )
    turn = 0
    while True:
        for name, extension, content in kinds:
            yield f"{name}-{turn}.{extension}", content
        turn += 1


def _encoded(samples_S: Any, rate: int, container: str, subtype: str) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples_S, rate, format=container, subtype=subtype)
    return buffer.getvalue()


def _write_atomically(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
