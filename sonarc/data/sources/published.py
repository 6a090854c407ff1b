"""Datasets of captioned audio as their makers publish them: the folder that their archives unpack to.

Where audio is not published but fetched by users (AudioCaps, MusicCaps), files go by the names that common tools
give them. Clips without their audio are refused as missing, and counted.

Sources: the README files of AudioCaps (Kim et al., 2019), Clotho (Drossos et al., 2020), FSD50K (Fonseca et al., 2022),
WavCaps (Mei et al., 2024), MusicCaps (Agostinelli et al., 2023) and the Song Describer dataset (Manco et al., 2023).
"""

from __future__ import annotations

import ast
import json
import posixpath
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sonarc.audio.refusal import Refused
from sonarc.contracts import store
from sonarc.contracts.config import SUBSETS, Layout, SourceConfig
from sonarc.contracts.dataset import Reason
from sonarc.contracts.errors import SourceError
from sonarc.data.sources.listing import Present, Row, is_audio
from sonarc.data.sources.table import csv_rows


@dataclass(frozen=True)
class Tree:
    """The files of a published dataset.

    Attributes:
        root: URI of its folder.
        present: the files below it.
    """

    source: SourceConfig
    root: str
    present: Present

    def subsets(self) -> tuple[str, ...]:
        """The parts to take, by the dataset's own names."""
        return self.source.subset or SUBSETS[self.source.layout]

    def annotations(self, names: Mapping[str, str]) -> dict[str, str]:
        """Where the annotation files lie: subset → path; those of subsets that were not asked for may be absent.

        Args:
            names: subset → file name.

        Raises:
            SourceError: one that was asked for is not there, or none at all.
        """
        places = {posixpath.basename(path): path for path in sorted(self.present, key=lambda p: (-p.count("/"), p))}
        found = {subset: places[name] for subset, name in names.items() if name in places}
        missing = [names[subset] for subset in self.source.subset if subset in names and subset not in found]
        if missing or not found:
            raise SourceError(
                f"The source {self.source.name!r} at {self.root} has no {', '.join(missing or names.values())}, "
                f"which {self.source.layout} has.",
                "Give the folder that the dataset's archives were unpacked to.",
            )
        return found

    def csv(self, path: str) -> Iterator[Row]:
        """The rows of a table."""
        return csv_rows(store.join(self.root, path))

    def json(self, path: str) -> Any:
        """A JSON document.

        Raises:
            SourceError: it is none.
        """
        try:
            return json.loads(store.read_bytes(store.join(self.root, path)))
        except (ValueError, RecursionError) as error:
            raise SourceError(
                f"{path} of the source {self.source.name!r} is no JSON: {error}.", "Get it again."
            ) from error

    def audio(self, stems: Iterable[str], within: str = "") -> str | None:
        """The audio file whose name, without its extension, is the first found of `stems`.

        Args:
            within: part of the path, in any case, that it should have: of files of the same name that one is taken.
        """
        for stem in stems:
            paths = self._by_stem.get(stem, [])
            preferred = [path for path in paths if within.lower() in path.lower()]
            if preferred or paths:
                return (preferred or paths)[0]
        return None

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for path in sorted(filter(is_audio, self.present)):
            found.setdefault(posixpath.splitext(posixpath.basename(path))[0], []).append(path)
        return found


def audiocaps(tree: Tree) -> Iterator[Row]:
    """`train.csv`, `val.csv`, `test.csv`: audiocap_id, youtube_id, start_time, caption; a row a caption."""
    for path in tree.annotations({subset: f"{subset}.csv" for subset in tree.subsets()}).values():
        for place, rows in _gathered(tree.csv(path), ("youtube_id", "start_time"), "caption"):
            if isinstance(rows, Refused):
                yield Row(place, rows)
                continue
            video, start = rows[0]["youtube_id"], rows[0]["start_time"]
            ids = [row.get("audiocap_id", "") for row in rows]
            yield _row(
                place,
                tree.audio([*ids, video, f"Y{video}", f"{video}_{start}", f"{video}_{start}000", f"[{video}]"]),
                f"{video}.wav",
                captions=[row["caption"] for row in rows],
                group=f"{tree.source.name}/{video}",
                url=f"https://www.youtube.com/watch?v={video}&t={start}",
            )


def clotho(tree: Tree) -> Iterator[Row]:
    """`clotho_captions_*.csv`: file_name, caption_1 to caption_5; licences and makers in `clotho_metadata_*.csv`."""
    captions = tree.annotations({subset: f"clotho_captions_{subset}.csv" for subset in tree.subsets()})
    for subset, path in captions.items():
        known = _clotho_metadata(tree, subset)
        for row in tree.csv(path):
            facts = _needed(row, ("file_name", "caption_1"))
            if isinstance(facts, Refused):
                yield Row(row.place, facts)
                continue
            name = facts["file_name"].strip()
            about = known.get(name, {})
            maker = about.get("manufacturer", "")
            yield _row(
                row.place,
                tree.audio([posixpath.splitext(name)[0]], within=f"{subset}/"),
                name,
                captions=[text for column, text in facts.items() if column.startswith("caption_") and text],
                group=f"{tree.source.name}/{about.get('sound_id') or name}",
                author=maker,
                licence=about.get("license", ""),
                url=about.get("sound_link", ""),
            )


def _clotho_metadata(tree: Tree, subset: str) -> dict[str, Mapping[str, str]]:
    """file name → what is known of it; its table is Latin-1 in some releases, and what cannot be read is not known."""
    name = f"clotho_metadata_{subset}.csv"
    found = [path for path in tree.present if posixpath.basename(path) == name]
    known: dict[str, Mapping[str, str]] = {}
    for row in tree.csv(found[0]) if found else ():
        if not isinstance(row.facts, Refused) and row.facts.get("file_name"):
            facts = {key: _latin(value) for key, value in row.facts.items() if isinstance(value, str)}
            known[facts["file_name"].strip()] = facts
    return known


def _latin(text: str) -> str:
    """A text whose bytes were no UTF-8, read as Latin-1."""
    return text.encode("utf-8", "surrogateescape").decode("latin-1") if _broken(text) else text


def _broken(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def fsd50k(tree: Tree) -> Iterator[Row]:
    """`dev.csv`, `eval.csv`: fname, labels; licences, titles and uploaders in `*_clips_info_FSD50K.json`.

    It has labels and no captions: they are the caption, most particular first, and the concept.
    """
    for subset, path in tree.annotations({subset: f"{subset}.csv" for subset in tree.subsets()}).items():
        found = [p for p in tree.present if posixpath.basename(p) == f"{subset}_clips_info_FSD50K.json"]
        known = tree.json(found[0]) if found else {}
        for row in tree.csv(path):
            facts = _needed(row, ("fname", "labels"))
            if isinstance(facts, Refused):
                yield Row(row.place, facts)
                continue
            name, labels = facts["fname"], facts["labels"].split(",")
            about = known.get(name) or {}
            uploader = about.get("uploader") or ""
            yield _row(
                row.place,
                tree.audio([name], within=f"{subset}_audio/"),
                f"{name}.wav",
                captions=[", ".join(label.replace("_", " ").lower() for label in labels)],
                concept={"labels": sorted(labels)},
                group=f"{tree.source.name}/{uploader or name}",  # one uploader's sounds are often of one recording
                author=uploader,
                licence=about.get("license") or "",
                url=f"https://freesound.org/s/{name}",
            )


_WAVCAPS = {
    "FreeSound": "fsd_final.json",
    "AudioSet_SL": "as_final.json",
    "BBC_Sound_Effects": "bbc_final.json",
    "SoundBible": "sb_final.json",
}


def wavcaps(tree: Tree) -> Iterator[Row]:
    """`fsd_final.json` and its like: `data`, a list of id, caption, author and href."""
    for subset, path in tree.annotations({subset: _WAVCAPS[subset] for subset in tree.subsets()}).items():
        document = tree.json(path)
        entries = document.get("data") if isinstance(document, dict) else None
        if not isinstance(entries, list):
            raise SourceError(f"{path} of the source {tree.source.name!r} has no list `data`.", "Get it again.")
        for number, entry in enumerate(entries):
            place = f"{posixpath.basename(path)}:{number}"
            if not isinstance(entry, dict) or not isinstance(entry.get("id"), str | int):
                yield Row(place, Refused(Reason.BAD_CAPTION, "the entry has no id"))
                continue
            name = posixpath.splitext(str(entry["id"]))[0]
            yield _row(
                place,
                tree.audio([name], within=subset),
                f"{name}.flac",
                captions=entry.get("caption"),
                group=f"{tree.source.name}/{subset}/{name}",
                author=entry.get("author"),
                url=entry.get("href"),
            )


def musiccaps(tree: Tree) -> Iterator[Row]:
    """`musiccaps-public.csv`: ytid, start_s, end_s, aspect_list, caption; the aspects are a second caption."""
    for path in tree.annotations({"": "musiccaps-public.csv"}).values():
        for row in tree.csv(path):
            facts = _needed(row, ("ytid", "caption"))
            if isinstance(facts, Refused):
                yield Row(row.place, facts)
                continue
            video, start, end = facts["ytid"], facts.get("start_s", ""), facts.get("end_s", "")
            aspects = _aspects(facts.get("aspect_list", ""))
            yield _row(
                row.place,
                tree.audio([video, f"[{video}]-[{start}-{end}]", f"{video}_{start}_{end}", f"{video}_{start}-{end}"]),
                f"{video}.wav",
                captions=[facts["caption"], *([", ".join(aspects)] if aspects else [])],
                group=f"{tree.source.name}/{video}",
                url=f"https://www.youtube.com/watch?v={video}&t={start}",
            )


def _aspects(cell: str) -> list[str]:
    """The list that is written as a Python literal."""
    try:
        found = ast.literal_eval(cell)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return []
    return [aspect for aspect in found if isinstance(aspect, str)] if isinstance(found, list) else []


def song_describer(tree: Tree) -> Iterator[Row]:
    """`song_describer.csv`: track_id, caption, is_valid_subset, artist_id, path; a row a caption; audio of 2 min."""
    for path in tree.annotations({"": "song_describer.csv"}).values():
        rows = tree.csv(path)
        if "valid" in tree.source.subset:
            rows = (r for r in rows if isinstance(r.facts, Refused) or r.facts.get("is_valid_subset") == "True")
        for place, tracks in _gathered(rows, ("track_id",), "caption"):
            if isinstance(tracks, Refused):
                yield Row(place, tracks)
                continue
            track = tracks[0]["track_id"]
            artist = tracks[0].get("artist_id", "")
            yield _row(
                place,
                tree.audio([f"{track}.2min", track]),
                f"{track}.2min.mp3",
                captions=[row["caption"] for row in tracks],
                group=f"{tree.source.name}/{artist or track}",
                author=artist,
                url=f"https://www.jamendo.com/track/{track}",
            )


LAYOUTS: dict[Layout, Callable[[Tree], Iterator[Row]]] = {
    "audiocaps": audiocaps,
    "clotho": clotho,
    "fsd50k": fsd50k,
    "wavcaps": wavcaps,
    "musiccaps": musiccaps,
    "song_describer": song_describer,
}


def _row(place: str, found: str | None, wanted: str, **facts: Any) -> Row:
    """A row of a file that was found, or is missing under the name it would have."""
    return Row(place, {"path": found or wanted, **facts})


def _needed(row: Row, columns: tuple[str, ...]) -> Mapping[str, str] | Refused:
    """The cells of a row, or why it is of no use."""
    if isinstance(row.facts, Refused):
        return row.facts
    if missing := [column for column in columns if not row.facts.get(column)]:
        return Refused(Reason.BAD_CAPTION, f"the row has no {', '.join(missing)}")
    return {name: value for name, value in row.facts.items() if isinstance(value, str)}


def _gathered(
    rows: Iterable[Row], key: tuple[str, ...], caption: str
) -> Iterator[tuple[str, list[Mapping[str, str]] | Refused]]:
    """Rows of the same clip together, each clip at the place of its first row; rows of no use as they come."""
    clips: dict[tuple[str, ...], tuple[str, list[Mapping[str, str]]]] = {}
    for row in rows:
        facts = _needed(row, (*key, caption))
        if isinstance(facts, Refused):
            yield row.place, facts
            continue
        clips.setdefault(tuple(facts[name] for name in key), (row.place, []))[1].append(facts)
    yield from clips.values()
