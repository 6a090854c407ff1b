"""Ingest: every file of every source to a dataset of clips, on Ray Data.

Tasks decode, condition and encode a handful of files each. The FLACs go straight into the store as one
*part* a task; only rows of metadata travel through Ray, so memory does not grow with the audio. When all
are in, the rows are sorted and cut into shards, and each shard is copied together from the parts. Whatever
the number of tasks, the dataset has the same bytes. The manifest comes last; the parts are removed.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ray.data
from ray.data import TaskPoolStrategy

from ray_jobs.job import Outcome, StageContext, main
from ray_jobs.parallel import parallel_map, plain_errors
from sonarc.audio import Refused
from sonarc.contracts import store
from sonarc.contracts.config import AudioConfig, DataConfig, SourceConfig
from sonarc.contracts.dataset import DatasetManifest, Reason
from sonarc.contracts.hashing import sha256_bytes
from sonarc.contracts.result import Artifact
from sonarc.data.ingest import (
    ClipRow,
    ShardPlan,
    WrittenShard,
    finish_dataset,
    make_clips,
    plan_shards,
    read_file,
    row_from_json,
    row_to_json,
    without_duplicates,
    write_shard,
)
from sonarc.data.sources import Listing, Refusal, SourceFile, read_source

FILES_PER_TASK = 16


@dataclass(frozen=True)
class Place:
    """Where a clip's FLAC waits until its shard is written."""

    part: str
    offset: int
    size: int


def run(context: StageContext) -> Outcome:
    """Make the dataset of the listed sources."""
    audio, config = context.config.audio, context.config.data
    dataset, parts = store.join(context.folder, "dataset"), store.join(context.folder, "parts")
    for leftover in (dataset, parts):  # of an attempt that was killed: no manifest, so it never counted
        store.remove_folder(leftover)
    listing = list_sources(store.read_json(context.input("sources", "sources").uri))
    total = len(listing.files)
    context.progress(0, total, unit="files", message="decoding")

    accepted: list[tuple[SourceFile, str, list[ClipRow]]] = []
    refused = list(listing.refused)
    places: dict[str, Place] = {}
    outcomes = _ingest_files(listing.files, audio, config, parts, context.config.compute.data_tasks)
    for done, (number, outcome) in enumerate(outcomes, 1):
        file = listing.files[number]
        if outcome["reason"]:
            refused.append(
                Refusal(file.source, file.path, Reason(outcome["reason"]), outcome["detail"], outcome["sha256"])
            )
        else:
            rows = [row_from_json(text) for text in outcome["rows"]]
            accepted.append((file, outcome["sha256"], rows))
            places |= {row.key: Place(*place) for row, place in zip(rows, outcome["places"], strict=True)}
        context.progress(done, total, unit="files")

    clips, duplicates = without_duplicates(accepted)
    plans = plan_shards(clips, config)
    context.progress(0, len(plans), unit="shards", message="writing shards")
    written = _write_shards(dataset, parts, plans, places, context)
    manifest = finish_dataset(dataset, plans, written, refused + duplicates, audio, config)
    store.remove_folder(parts)
    return Outcome(
        {"dataset": Artifact(uri=dataset, sha256=manifest.sha256())},
        metrics={
            "audio_seconds": manifest.seconds,
            "stereo_share": sum(row.stereo for row in clips) / len(clips),
        },
        counts=_counts(manifest, total),
    )


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
    files: list[SourceFile], audio: AudioConfig, config: DataConfig, parts: str, tasks: int
) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number of the file, what became of it), in the order of the files."""
    if not files:
        return
    numbered = [json.dumps([number, asdict(file)]) for number, file in enumerate(files)]
    batches = [
        {"number": number, "files": numbered[start : start + FILES_PER_TASK]}
        for number, start in enumerate(range(0, len(numbered), FILES_PER_TASK))
    ]
    logging.getLogger("ray.data").setLevel(logging.WARNING)  # its plan and its log's place are no news to a user
    options = ray.data.DataContext.get_current()
    options.enable_progress_bars = False
    options.execution_options.preserve_order = True
    results = ray.data.from_items(batches, override_num_blocks=len(batches)).map(
        ingest_batch, fn_args=(audio, config, parts), compute=TaskPoolStrategy(size=tasks)
    )
    with plain_errors():
        for row in results.iter_rows():
            for outcome in json.loads(row["outcomes"]):
                yield outcome["number"], outcome


def ingest_batch(batch: dict[str, Any], audio: AudioConfig, config: DataConfig, parts: str) -> dict[str, Any]:
    """Ingest some files: their FLACs into one part, what became of each into `outcomes` (JSON).

    A file that cannot be used is an outcome, not an exception.
    """
    part = f"{int(batch['number']):08d}.part"
    flacs: list[bytes] = []
    offset = 0
    outcomes = []
    for text in batch["files"]:
        number, described = json.loads(text)
        file = SourceFile(**described | {"captions": tuple(described["captions"])})
        outcome: dict[str, Any] = {"number": number, "sha256": "", "reason": "", "detail": "", "rows": [], "places": []}
        try:
            data = read_file(file, config)
            outcome["sha256"] = sha256_bytes(data)
            for clip in make_clips(data, file, audio, config):
                outcome["rows"].append(row_to_json(clip.row))
                outcome["places"].append((part, offset, len(clip.flac)))
                flacs.append(clip.flac)
                offset += len(clip.flac)
        except Refused as refused:
            outcome |= {"reason": str(refused.reason), "detail": refused.detail}
        outcomes.append(outcome)
    store.write_bytes(store.join(parts, part), b"".join(flacs))
    return {"outcomes": json.dumps(outcomes)}


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


def _counts(manifest: DatasetManifest, files: int) -> dict[str, int]:
    quarantined = Counter(manifest.quarantined)
    return {
        "files": files,
        "clips": manifest.clips,
        "groups": sum(split.groups for split in manifest.splits.values()),
        **{name: split.clips for name, split in manifest.splits.items()},
        "shards": len(manifest.shards),
        "quarantined": quarantined.total(),
        **{f"quarantined_{reason}": count for reason, count in sorted(quarantined.items())},
    }


if __name__ == "__main__":
    main("ingest")
