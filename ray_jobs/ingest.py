"""Ingest: every file of every source to a dataset of clips, on Ray Data.

Tasks decode, condition and encode a handful of files each. The FLACs go straight into the store as one
*part* a task; only rows of metadata travel through Ray, so memory does not grow with the audio. When all
are in, the rows are sorted and cut into shards, and each shard is copied together from the parts. Whatever
the number of tasks, the dataset has the same bytes. The manifest comes last; the parts are removed.
"""

from __future__ import annotations

import json
import logging
import os
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import ray.data
from ray.data import TaskPoolStrategy

from ray_jobs.job import Outcome, StageContext, main
from ray_jobs.parallel import parallel_map, plain_errors
from sonarc.audio import Refused
from sonarc.contracts import store
from sonarc.contracts.config import AudioConfig, DataConfig, SourceConfig
from sonarc.contracts.dataset import DatasetManifest, Reason, lineage_sha256
from sonarc.contracts.hashing import sha256_path
from sonarc.contracts.result import Artifact
from sonarc.data.growth import Latest, Parent, Stamps, places
from sonarc.data.ingest import (
    Accepted,
    ClipRow,
    Ingested,
    Placed,
    ShardPlan,
    WrittenShard,
    at_hand,
    finish_dataset,
    place_clips,
    plan_shards,
    row_from_json,
    row_to_json,
    without_duplicates,
    write_shard,
)
from sonarc.data.isolated import Isolated
from sonarc.data.near import Seen
from sonarc.data.shards import load_writer
from sonarc.data.sources import Listing, Refusal, SourceFile, read_source

FILES_PER_TASK = 128
"""At most. Ray Data takes a fifth of a second from one task to the next."""
ROUNDS = 4
"""At least so many tasks one after the other, so that the progress of few files can be seen."""
DECODE_SECONDS = 120.0
"""A file that takes longer to decode and condition is refused."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a clip's FLAC waits until its shard is written."""

    part: str
    offset: int
    size: int


def run(context: StageContext) -> Outcome:
    """Make the dataset of the listed sources, or the next version of the one that the request names as parent."""
    audio, config = context.config.audio, context.config.data
    dataset, parts = store.join(context.folder, "dataset"), store.join(context.folder, "parts")
    for leftover in (dataset, parts):  # of an attempt that was killed: no manifest, so it never counted
        store.remove_folder(leftover)
    sources = context.input("sources", "sources")
    listing = list_sources(store.read_json(sources.uri))
    pointer, kept = places(context.request.store, lineage_sha256(audio, config))
    parent = Parent.read(context.request.parent) if context.request.parent else None
    latest = Latest(dataset, sources.sha256, context.request.parent)

    found = _look(listing.files, parent, Stamps.read(kept), context, parts)
    refused, inputs = listing.refused + found.refused, found.inputs
    clips, duplicates = without_duplicates(found.accepted, parent.known() if parent else None)
    duplicates += _near_duplicates(found, duplicates, parent, config.near_duplicate)
    repeated = {(refusal.source, refusal.path) for refusal in duplicates}
    inputs |= {name: taken for name, taken in found.taken.items() if name not in repeated}
    unheard = {refusal.source_sha256 for refusal in duplicates if refusal.reason is Reason.NEAR_DUPLICATE}
    clips = [row for row in clips if row.source_sha256 not in unheard]
    old_rows = parent.followed(listing.files) if parent else []
    refused += duplicates
    if parent and not clips and old_rows == parent.rows and set(refused) == set(parent.quarantine):
        store.remove_folder(parts)
        replace(latest, dataset=parent.uri).write(pointer)
        found.stamps.write(kept)
        return _outcome(parent.uri, parent.manifest, len(listing.files), [])
    plans = plan_shards(clips, config, parent.after() if parent else None)
    context.progress(0, len(plans), unit="shards", message="writing shards")
    if parent:
        parent.copy_shards(dataset)
    written = _write_shards(dataset, parts, plans, found.places, context)
    made = Ingested(plans, written, refused, inputs, parent.manifest if parent else None, old_rows)
    manifest = finish_dataset(dataset, made, audio, config)
    store.remove_folder(parts)
    latest.write(pointer)
    found.stamps.write(kept)
    return _outcome(dataset, manifest, len(listing.files), clips)


@dataclass
class _Found:
    """What became of the listed files.

    Attributes:
        accepted: new files, the hash of their bytes, and their clips.
        inputs: files whose clips the parent has.
        taken: the accepted files, as the dataset notes them.
        places: where each new clip's FLAC waits.
    """

    accepted: list[tuple[SourceFile, str, list[ClipRow]]] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    inputs: dict[tuple[str, str], Accepted] = field(default_factory=dict)
    taken: dict[tuple[str, str], Accepted] = field(default_factory=dict)
    places: dict[str, Place] = field(default_factory=dict)
    stamps: Stamps = field(default_factory=Stamps)


def _look(files: list[SourceFile], parent: Parent | None, stamps: Stamps, context: StageContext, parts: str) -> _Found:
    """Every file that is not known is read, and, if its bytes are not known either, made into clips."""
    found = _Found(inputs=dict(parent.inputs) if parent else {})
    unknown = []
    for file in files:
        digest = stamps.digest(file)
        said = parent.said(file, digest) if parent and digest else None
        if said is None:
            unknown.append(file)
        else:
            found.stamps.note(file, digest)
            if isinstance(said, Refusal):
                found.refused.append(said)
    known = frozenset(parent.known()) if parent else frozenset[str]()
    config = context.config
    context.progress(0, len(unknown), unit="files", message="decoding")
    outcomes = _ingest_files(unknown, config.audio, config.data, parts, config.compute.data_tasks, known)
    for done, (number, outcome) in enumerate(outcomes, 1):
        file, digest = unknown[number], outcome["sha256"]
        found.stamps.note(file, digest)
        if outcome["reason"]:
            found.refused.append(Refusal(file.source, file.path, Reason(outcome["reason"]), outcome["detail"], digest))
        elif parent is None or parent.said(file, digest) is None:
            rows = [row_from_json(text) for text in outcome["rows"]]
            found.accepted.append((file, digest, rows))
            seconds = round(sum(row.seconds for row in rows), 6)
            found.taken[file.source, file.path] = Accepted(digest, seconds, b64decode(outcome["fingerprint"]))
            found.places |= {row.key: Place(*place) for row, place in zip(rows, outcome["places"], strict=True)}
        context.progress(done, len(unknown), unit="files")
    return found


def _near_duplicates(
    found: _Found, duplicates: list[Refusal], parent: Parent | None, threshold: float
) -> list[Refusal]:
    """New files that sound like an earlier one."""
    exact = {(refusal.source, refusal.path) for refusal in duplicates}
    new = [(file, digest) for file, digest, _ in found.accepted if (file.source, file.path) not in exact]
    if threshold >= 1 or not new:
        return []
    taken = [found.taken[file.source, file.path] for file, _ in new]
    seen = parent.sounds(threshold) if parent else Seen(threshold)
    sounds = [
        (f"{file.source}/{file.path}", said.seconds, np.frombuffer(said.fingerprint, np.float16))
        for (file, _), said in zip(new, taken, strict=True)
    ]
    refused = []
    for (file, digest), repeats in zip(new, seen.sift(sounds), strict=True):
        if repeats is not None:
            detail = f"it sounds like {repeats[0]}: {repeats[1]:.4f}"
            refused.append(Refusal(file.source, file.path, Reason.NEAR_DUPLICATE, detail, digest))
    return refused


def list_sources(sources: Iterable[dict[str, Any]]) -> Listing:
    """The files of all sources of a `sources.json`, in its order."""
    whole = Listing()
    for source in sources:
        described = {name: source[name] for name in SourceConfig.model_fields if name in source}
        listing = read_source(SourceConfig.model_validate(described))
        whole.files += listing.files
        whole.refused += listing.refused
    return whole


def _ingest_files(
    files: list[SourceFile], audio: AudioConfig, config: DataConfig, parts: str, tasks: int, known: frozenset[str]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number of the file, what became of it), in the order of the files."""
    if not files:
        return
    numbered = [json.dumps([number, asdict(file)]) for number, file in enumerate(files)]
    rounds = max(ROUNDS, -(-len(files) // (tasks * FILES_PER_TASK)))
    size = -(-len(files) // (tasks * rounds))  # the tasks of a round end together, those of the last one, too
    batches = [
        {"number": number, "files": numbered[start : start + size]}
        for number, start in enumerate(range(0, len(numbered), size))
    ]
    logging.getLogger("ray.data").setLevel(logging.WARNING)  # its plan and its log's place are no news to a user
    options = ray.data.DataContext.get_current()
    options.enable_progress_bars = False
    options.execution_options.preserve_order = True
    results = ray.data.from_items(batches, override_num_blocks=len(batches)).map(
        ingest_batch, fn_args=(audio, config, parts, known), compute=TaskPoolStrategy(size=tasks)
    )
    with plain_errors():
        for row in results.iter_rows():
            for outcome in json.loads(row["outcomes"]):
                yield outcome["number"], outcome


def ingest_batch(
    batch: dict[str, Any], audio: AudioConfig, config: DataConfig, parts: str, known: frozenset[str] = frozenset()
) -> dict[str, Any]:
    """Ingest some files: their FLACs into one part, what became of each into `outcomes` (JSON).

    A file that cannot be used is an outcome, not an exception. One whose bytes are `known` is not decoded.
    """
    name = f"{int(batch['number']):08d}.part"
    offset = 0
    outcomes = []
    with TemporaryDirectory(prefix="sonarc-part-") as scratch:
        copy, part = Path(scratch) / "file", Path(scratch) / name
        part.touch()
        for text in batch["files"]:
            number, described = json.loads(text)
            file = SourceFile(**described | {"captions": tuple(described["captions"])})
            placed = _placed(file, copy, known, audio, config, part, offset)
            outcome: dict[str, Any] = {"number": number, "sha256": placed.sha256, "reason": "", "detail": ""}
            if placed.refused:
                outcome |= {"reason": str(placed.refused.reason), "detail": placed.refused.detail}
            outcome["fingerprint"] = b64encode(placed.fingerprint).decode()
            outcome["rows"] = [row_to_json(row) for row in placed.rows]
            outcome["places"] = []
            for size in placed.sizes:
                outcome["places"].append((name, offset, size))
                offset += size
            outcomes.append(outcome)
        os.truncate(part, offset)  # one that died may have begun to write
        store.move_in(part, store.join(parts, name))
    return {"outcomes": json.dumps(outcomes)}


def _placed(
    file: SourceFile, copy: Path, known: frozenset[str], audio: AudioConfig, config: DataConfig, part: Path, offset: int
) -> Placed:
    """What became of one file; its clips from `offset` on in `part`."""
    try:
        path = at_hand(file, config, copy)
    except Refused as refused:
        return Placed("", refused=refused)
    if known and (digest := _hash(path)) in known:
        return Placed(digest)
    try:
        return _apart()(place_clips, path, file, audio, config, part, offset)
    except Refused as crashed:
        return Placed(_hash(path), refused=crashed)


def _hash(path: Path) -> str:
    """Of a file's bytes; empty if it cannot be read, which `place_clips` then says."""
    try:
        return sha256_path(path)
    except OSError:
        return ""


@cache
def _apart() -> Isolated:
    """This worker's process for decoding: libraries that decode have crashed on files made for it."""
    load_writer()  # now, and not when the last files are in and everybody waits for shards
    return Isolated(DECODE_SECONDS)


def _write_shards(
    dataset: str, parts: str, plans: list[ShardPlan], places: dict[str, Place], context: StageContext
) -> list[WrittenShard]:
    jobs = [(dataset, parts, plan, {row.key: places[row.key] for row in plan.rows}) for plan in plans]
    written = []
    for shard in parallel_map(_write_shard, jobs, tasks=context.config.compute.data_tasks):
        written.append(shard)
        context.progress(len(written), len(plans), unit="shards")
    return written


def _write_shard(job: tuple[str, str, ShardPlan, dict[str, Place]]) -> WrittenShard:
    dataset, parts, plan, places = job
    fs, folder = store.filesystem(parts)

    def flac_of(key: str) -> bytes:
        place = places[key]
        return bytes(fs.cat_file(f"{folder}/{place.part}", start=place.offset, end=place.offset + place.size))

    with TemporaryDirectory(prefix="sonarc-shard-") as scratch:
        return write_shard(dataset, plan, flac_of, Path(scratch))


def _outcome(uri: str, manifest: DatasetManifest, files: int, new: list[ClipRow]) -> Outcome:
    quarantined = Counter(manifest.quarantined)
    stereo = {"stereo_share": sum(row.stereo for row in new) / len(new)} if new else {}
    return Outcome(
        {"dataset": Artifact(uri=uri, sha256=manifest.sha256())},
        metrics={"audio_seconds": manifest.seconds, **stereo},
        counts={
            "files": files,
            "clips": manifest.clips,
            "new_clips": len(new),
            "version": manifest.version,
            "groups": sum(split.groups for split in manifest.splits.values()),
            **{name: split.clips for name, split in manifest.splits.items()},
            "shards": len(manifest.shards),
            "quarantined": quarantined.total(),
            **{f"quarantined_{reason}": count for reason, count in sorted(quarantined.items())},
        },
    )


if __name__ == "__main__":
    main("ingest")
