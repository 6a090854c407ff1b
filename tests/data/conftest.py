"""A small source folder and the dataset made of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from sounds import file_of, noise

from sonarc.audio import Refused
from sonarc.contracts.config import AudioConfig, DataConfig, SourceConfig
from sonarc.contracts.dataset import DatasetManifest
from sonarc.contracts.hashing import sha256_bytes
from sonarc.data.ingest import (
    Ingested,
    at_hand,
    finish_dataset,
    make_clips,
    plan_shards,
    without_duplicates,
    write_shard,
)
from sonarc.data.sources import Refusal, read_source

AUDIO = AudioConfig(samples=16_384)
DATA = DataConfig(shard_clips=3)


@pytest.fixture
def source(tmp_path: Path) -> SourceConfig:
    """Twelve files in five groups and two without, one of them damaged, one a copy of another."""
    folder = tmp_path / "source"
    (folder / "audio").mkdir(parents=True)
    rows = []
    for number in range(10):
        path = f"audio/{number}.wav"
        (folder / path).write_bytes(file_of(noise(0.2 + 0.015 * number, seed=number)))
        rows.append(
            {
                "path": path,
                "captions": [f"noise number {number}", f"hiss {number}"],
                "concept": {"kind": "noise", "number": number},
                "group": f"kit {number // 2}",
                "author": "nobody",
            }
        )
    (folder / "audio/copy.wav").write_bytes((folder / "audio/3.wav").read_bytes())
    (folder / "audio/page.wav").write_bytes(b"<html>not found</html>" * 20)
    rows += [{"path": f"audio/{name}.wav", "captions": "one more"} for name in ("copy", "page")]
    (folder / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return SourceConfig(name="noises", uri=str(folder), licence="CC0-1.0", weight=2.0)


@pytest.fixture
def make_dataset(tmp_path: Path) -> Callable[..., DatasetManifest]:
    """Make the dataset of a source at a folder, taking the files in the given order."""

    def make(source: SourceConfig, uri: Path, *, backwards: bool = False) -> DatasetManifest:
        listing = read_source(source)
        made, refused, flacs = [], list(listing.refused), {}
        for file in reversed(listing.files) if backwards else listing.files:
            try:
                data = at_hand(file, DATA, tmp_path / "copy").read_bytes()
                clips = make_clips(data, sha256_bytes(data), file, AUDIO, DATA)
            except Refused as error:
                refused.append(Refusal(file.source, file.path, error.reason, error.detail))
                continue
            flacs |= {clip.row.key: clip.flac for clip in clips}
            made.append((file, clips[0].row.source_sha256, [clip.row for clip in clips]))
        made.sort(key=lambda entry: entry[0].path)
        rows, copies = without_duplicates(made)
        plans = plan_shards(rows, DATA)
        scratch = tmp_path / "scratch"
        scratch.mkdir(exist_ok=True)
        written = [write_shard(str(uri), plan, flacs.__getitem__, scratch) for plan in plans]
        return finish_dataset(str(uri), Ingested(plans, written, refused + copies, {}), AUDIO, DATA)

    return make
