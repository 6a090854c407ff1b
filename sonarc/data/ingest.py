"""Ingest, without the machinery that distributes it: one file to clips, all clips to a dataset.

Clips are made in any order on any number of workers; shards are cut from the list sorted by key, so the
same files and settings give the same bytes.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sonarc.audio import Refused, check_quality, condition, decode, encode_flac
from sonarc.contracts import store
from sonarc.contracts.config import AudioConfig, DataConfig
from sonarc.contracts.dataset import (
    INDEX_SCHEMA,
    INPUTS_SCHEMA,
    QUARANTINE_SCHEMA,
    SPLITS,
    DatasetManifest,
    Reason,
    Shard,
    Split,
    SplitCount,
    clip_key,
    settings_sha256,
    split_of,
    write_dataset,
)
from sonarc.contracts.errors import DataError, SourceError, StoreError
from sonarc.contracts.hashing import canonical_json, sha256_bytes, sha256_path
from sonarc.data.near import fingerprint, of_file
from sonarc.data.shards import ShardWriter
from sonarc.data.sources import Refusal, SourceFile
from sonarc.data.sources.fetch import fetch
from sonarc.data.sources.listing import HTTPS

STEREO_DB = -40.0
"""A clip counts as true stereo when its side energy is above this share of its energy, dB."""


@dataclass(frozen=True, slots=True)
class ClipRow:
    """What the index says of a clip before it has a place in a shard, and whether it is true stereo."""

    key: str
    captions: tuple[str, ...]
    concept: str
    group: str
    source: str
    source_sha256: str
    start_s: float
    seconds: float
    frames: int
    author: str
    licence: str
    url: str
    loudness: float
    weight: float
    stereo: bool

    def document(self) -> dict[str, Any]:
        """`<key>.json` in a shard, so that a shard is of use without the index."""
        document = asdict(self)
        del document["stereo"], document["weight"]
        return document | {"captions": list(self.captions), "concept": json.loads(self.concept)}


@dataclass(frozen=True)
class EncodedClip:
    """A clip ready to be written."""

    row: ClipRow
    flac: bytes
    fingerprint: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Accepted:
    """A file whose clips are in the dataset.

    Attributes:
        seconds: of all its clips.
        fingerprint: see `sonarc.data.near`; float16 bytes.
    """

    sha256: str
    seconds: float
    fingerprint: bytes


def at_hand(file: SourceFile, config: DataConfig, copy: Path) -> Path:
    """Where a source's file lies on this machine: a local one where it is, any other as a copy at `copy`.

    Raises:
        Refused: it is missing, unreadable, or larger than the largest file that could be accepted; or its address is
            not public, or does not answer.
    """
    if file.uri.startswith(HTTPS):
        copy.write_bytes(fetch(file.uri, config.fetch))
        return copy
    limit = 8 * config.max_source_samples + (1 << 20)  # float64 samples and a header
    try:
        fs, path = store.filesystem(file.uri)
        if (size := int(fs.size(path))) > limit:
            raise Refused(Reason.TOO_LARGE, f"{size} bytes, more than {limit}")
        place = store.local_path(file.uri)
        data = b"" if place else store.read_bytes(file.uri)
    except (StoreError, OSError) as error:
        raise Refused(Reason.MISSING, "it cannot be read") from error
    if place is None:
        copy.write_bytes(data)
    elif not place.is_file():
        raise Refused(Reason.MISSING, "it is no file")
    return place or copy


def make_clips(data: bytes, digest: str, file: SourceFile, audio: AudioConfig, config: DataConfig) -> list[EncodedClip]:
    """Decode, condition and encode one file.

    Args:
        data: the file's bytes, and their sha256.
        file: what its source says of it.

    Raises:
        Refused: the file cannot be used.
    """
    waveform = decode(data, max_samples=config.max_source_samples)
    check_quality(waveform, config)
    segments = condition(waveform, audio, config)
    return [
        EncodedClip(
            ClipRow(
                key=clip_key(digest, number),
                captions=file.captions,
                concept=file.concept,
                group=file.group,
                source=file.source,
                source_sha256=digest,
                start_s=round(segment.start_s, 6),
                seconds=segment.frames / audio.sample_rate,
                frames=segment.frames,
                author=file.author,
                licence=file.licence,
                url=file.url,
                loudness=round(segment.loudness, 3),
                weight=file.weight,
                stereo=_is_stereo(segment.audio_AS),
            ),
            encode_flac(segment.audio_AS, audio.sample_rate),
            fingerprint(segment.audio_AS, audio.sample_rate),
        )
        for number, segment in enumerate(segments)
    ]


@dataclass(frozen=True)
class Placed:
    """What became of a file, whose clips' FLACs lie in a part one after the other.

    Attributes:
        sha256: of its bytes; empty if they could not be read.
        sizes: bytes of each FLAC.
        fingerprint: of the file, bytes; see `sonarc.data.near`.
        refused: why there are no clips.
    """

    sha256: str
    rows: tuple[ClipRow, ...] = ()
    sizes: tuple[int, ...] = ()
    fingerprint: bytes = b""
    refused: Refused | None = None


def place_clips(
    path: Path, file: SourceFile, audio: AudioConfig, config: DataConfig, part: Path, offset: int
) -> Placed:
    """The clips of the file at `path`, into `part` from `offset` on: between processes no audio travels in messages."""
    try:
        data = path.read_bytes()
    except OSError:
        return Placed("", refused=Refused(Reason.MISSING, "it cannot be read"))
    digest = sha256_bytes(data)
    try:
        clips = make_clips(data, digest, file, audio, config)
    except Refused as refused:
        return Placed(digest, refused=refused)
    with part.open("r+b") as output:
        output.seek(offset)
        output.writelines(clip.flac for clip in clips)
    rows, sizes = tuple(clip.row for clip in clips), tuple(len(clip.flac) for clip in clips)
    return Placed(digest, rows, sizes, of_file([clip.fingerprint for clip in clips]).tobytes())


def _is_stereo(audio_AS: NDArray[np.float32]) -> bool:
    mid, side = audio_AS[0] + audio_AS[1], audio_AS[0] - audio_AS[1]
    side_energy = float(np.vdot(side, side))
    return side_energy > 10 ** (STEREO_DB / 10) * (float(np.vdot(mid, mid)) + side_energy)


def without_duplicates(
    files: Iterable[tuple[SourceFile, str, Sequence[ClipRow]]], known: Mapping[str, str] | None = None
) -> tuple[list[ClipRow], list[Refusal]]:
    """The clips of every file whose bytes were not seen before, and a refusal for each repetition.

    Args:
        files: (file, sha256 of its bytes, its clips), in the order in which the sources list them.
        known: sha256 → `source/path` of files that the parent has.
    """
    first = dict(known or {})
    clips: list[ClipRow] = []
    refused = []
    for file, digest, rows in files:
        if digest in first:
            detail = f"the same bytes as {first[digest]}"
            refused.append(Refusal(file.source, file.path, Reason.DUPLICATE, detail, digest))
            continue
        first[digest] = f"{file.source}/{file.path}"
        clips.extend(rows)
    return clips, refused


@dataclass(frozen=True)
class ShardPlan:
    """Which clips a shard holds, in order."""

    name: str
    split: Split
    rows: tuple[ClipRow, ...]


def plan_shards(
    rows: Iterable[ClipRow], config: DataConfig, after: Mapping[Split, int] | None = None
) -> list[ShardPlan]:
    """Clips sorted by key within their split, `config.shard_clips` a shard.

    Args:
        after: how many shards of each split there are already.
    """
    first = after or {}
    by_split: dict[Split, list[ClipRow]] = {split: [] for split in SPLITS}
    for row in sorted(rows, key=lambda row: row.key):
        by_split[split_of(row.group, config.train_fraction, config.valid_fraction)].append(row)
    size = config.shard_clips
    return [
        ShardPlan(f"{split}-{first.get(split, 0) + number:06d}.tar", split, tuple(rows[number * size :][:size]))
        for split, rows in by_split.items()
        for number in range(-(-len(rows) // size))
    ]


@dataclass(frozen=True)
class WrittenShard:
    """A shard in the store, and where its FLACs lie: (offset, bytes) in the plan's order."""

    shard: Shard
    places: tuple[tuple[int, int], ...]


def write_shard(uri: str, plan: ShardPlan, flac_of: Callable[[str], bytes], scratch: Path) -> WrittenShard:
    """Write one shard into the dataset folder `uri`; it counts once the manifest names it.

    Args:
        flac_of: key → FLAC bytes; asked one clip at a time.
        scratch: local folder for the file under construction.
    """
    path = scratch / plan.name
    places = []
    try:
        with ShardWriter(path) as writer:
            for row in plan.rows:
                flac = flac_of(row.key)
                document = canonical_json(row.document()).encode("utf-8")
                offsets = writer.write(row.key, {"flac": flac, "json": document})
                places.append((offsets["flac"], len(flac)))
        shard = Shard(
            name=plan.name,
            split=plan.split,
            clips=len(plan.rows),
            bytes=path.stat().st_size,
            sha256=sha256_path(path),
        )
        store.move_in(path, store.join(uri, "shards", plan.name))
    finally:
        path.unlink(missing_ok=True)
    return WrittenShard(shard, tuple(places))


@dataclass(frozen=True)
class Ingested:
    """What an ingest has taken and refused.

    Attributes:
        plans, written: the new shards.
        refused: everything refused, now and before, of what the sources list.
        inputs: the accepted files, now and before, by (source, path).
        parent: what it adds to.
        old_rows: the parent's rows of the index, with what the sources now say of them.
    """

    plans: Sequence[ShardPlan]
    written: Sequence[WrittenShard]
    refused: Sequence[Refusal]
    inputs: Mapping[tuple[str, str], Accepted]
    parent: DatasetManifest | None = None
    old_rows: Sequence[dict[str, Any]] = ()


def finish_dataset(uri: str, made: Ingested, audio: AudioConfig, config: DataConfig) -> DatasetManifest:
    """Write index, quarantine, inputs and, last, the manifest of the shards in `uri`.

    Raises:
        SourceError: no clip was accepted. DataError: none is left to train on.
    """
    refusals = sorted(made.refused, key=lambda r: (r.source, r.path, r.reason, r.detail))
    reasons = Counter(str(refusal.reason) for refusal in refusals)
    shards = _in_order([*(made.parent.shards if made.parent else ()), *(shard.shard for shard in made.written)])
    if not shards:
        told = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items())) or "there are none"
        raise SourceError(f"No clip was accepted from the sources: {told}.", "Look at the files or their captions.")
    if shards[0].split != "train":
        raise DataError(
            f"No group fell into the train split of {config.train_fraction:.0%}.",
            "Add clips, or raise data.train_fraction.",
        )
    new_rows = [
        {**asdict(row), "split": plan.split, "shard": plan.name, "offset": offset, "bytes": size}
        for plan, shard in zip(made.plans, made.written, strict=True)
        for row, (offset, size) in zip(plan.rows, shard.places, strict=True)
    ]
    place = {shard.name: number for number, shard in enumerate(shards)}
    rows = sorted([*made.old_rows, *new_rows], key=lambda row: (place[row["shard"]], row["offset"]))
    index = pa.Table.from_pylist(rows, schema=INDEX_SCHEMA)
    quarantine = pa.Table.from_pylist([refusal.row() for refusal in refusals], schema=QUARANTINE_SCHEMA)
    accepted = [
        {
            "source": source,
            "path": path,
            "source_sha256": file.sha256,
            "seconds": file.seconds,
            "fingerprint": file.fingerprint,
        }
        for (source, path), file in sorted(made.inputs.items(), key=lambda item: item[0])
    ]
    manifest = DatasetManifest(
        version=made.parent.version + 1 if made.parent else 1,
        parent=made.parent.sha256() if made.parent else None,
        config_sha256=settings_sha256(audio, config),
        sample_rate=audio.sample_rate,
        channels=audio.channels,
        samples=audio.samples,
        clips=index.num_rows,
        seconds=_seconds(rows),
        splits={split: _count([row for row in rows if row["split"] == split]) for split in SPLITS},
        shards=tuple(shards),
        index_sha256=_write_table(store.join(uri, "index.parquet"), index),
        quarantine_sha256=_write_table(store.join(uri, "quarantine.parquet"), quarantine),
        quarantined=dict(sorted(reasons.items())),
        inputs_sha256=_write_table(
            store.join(uri, "inputs.parquet"), pa.Table.from_pylist(accepted, schema=INPUTS_SCHEMA)
        ),
    )
    write_dataset(uri, manifest)
    return manifest


def _in_order(shards: Iterable[Shard]) -> list[Shard]:
    return sorted(shards, key=lambda shard: (SPLITS.index(shard.split), shard.name))


def _count(rows: Sequence[dict[str, Any]]) -> SplitCount:
    return SplitCount(clips=len(rows), groups=len({row["group"] for row in rows}), seconds=_seconds(rows))


def _seconds(rows: Iterable[dict[str, Any]]) -> float:
    return round(sum(float(row["seconds"]) for row in rows), 3)


def _write_table(uri: str, table: pa.Table) -> str:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return store.write_bytes(uri, buffer.getvalue())


def row_to_json(row: ClipRow) -> str:
    """A row as a message between workers."""
    return canonical_json(asdict(row))


def row_from_json(text: str) -> ClipRow:
    """The row of `row_to_json`."""
    row = ClipRow(**json.loads(text))
    return replace(row, captions=tuple(row.captions))
