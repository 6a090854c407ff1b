from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from sonarc.contracts import store
from sonarc.contracts.config import AudioConfig, DataConfig, SourceConfig
from sonarc.contracts.dataset import (
    INDEX_SCHEMA,
    QUARANTINE_SCHEMA,
    DatasetManifest,
    Shard,
    read_dataset,
    split_of,
)
from sonarc.contracts.errors import DataError, SourceError, StoreError
from sonarc.data.ingest import Ingested, ShardPlan, WrittenShard, finish_dataset
from sonarc.data.shards import open_shard

Make = Callable[..., DatasetManifest]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_dataset_is_complete_and_agrees_with_itself(source: SourceConfig, make_dataset: Make, tmp_path: Path) -> None:
    manifest = make_dataset(source, tmp_path / "dataset")
    assert read_dataset(str(tmp_path / "dataset")) == manifest
    assert manifest.clips == 10 == sum(split.clips for split in manifest.splits.values())
    assert manifest.quarantined == {"duplicate": 1, "not_audio": 1}
    index = pq.read_table(tmp_path / "dataset/index.parquet")
    assert index.schema.equals(INDEX_SCHEMA)
    rows = index.to_pylist()
    assert [(row["split"], row["shard"], row["offset"]) for row in rows] == sorted(
        ((row["split"], row["shard"], row["offset"]) for row in rows),
        key=lambda place: (("train", "valid", "test").index(place[0]), *place[1:]),
    )
    for row in rows:
        assert row["split"] == split_of(row["group"])
        assert row["licence"] == "CC0-1.0"
        assert row["weight"] == 2.0
        assert row["seconds"] == row["frames"] / manifest.sample_rate
    for shard in manifest.shards:
        with open_shard(
            store.join(str(tmp_path / "dataset"), "shards", shard.name), sha256=shard.sha256, size=shard.bytes
        ) as reader:
            members = list(reader)
        assert len(members) == 2 * shard.clips <= 2 * 3
        named = {row["key"]: row for row in rows if row["shard"] == shard.name}
        for member in members:
            row = named[member.key]
            if member.extension == "flac":
                assert (member.offset, len(member.content)) == (row["offset"], row["bytes"])
            else:
                document = json.loads(member.content)
                assert document["captions"] == row["captions"]
                assert document["concept"] == json.loads(row["concept"])
    quarantine = pq.read_table(tmp_path / "dataset/quarantine.parquet")
    assert quarantine.schema.equals(QUARANTINE_SCHEMA)
    copy, page = quarantine.to_pylist()
    assert (copy["path"], copy["reason"]) == ("audio/copy.wav", "duplicate")
    assert "noises/audio/3.wav" in copy["detail"]
    assert (page["path"], page["reason"]) == ("audio/page.wav", "not_audio")


def test_the_same_inputs_give_the_same_bytes_in_any_order(
    source: SourceConfig, make_dataset: Make, tmp_path: Path
) -> None:
    first = make_dataset(source, tmp_path / "one")
    second = make_dataset(source, tmp_path / "two", backwards=True)
    assert first.sha256() == second.sha256()
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_shards_without_a_manifest_do_not_count(source: SourceConfig, make_dataset: Make, tmp_path: Path) -> None:
    make_dataset(source, tmp_path / "dataset")
    (tmp_path / "dataset/dataset.json").unlink()
    with pytest.raises(StoreError, match="Nothing is stored"):
        read_dataset(str(tmp_path / "dataset"))


def test_nothing_accepted_and_nothing_to_train_on_are_clear_errors(
    source: SourceConfig, make_dataset: Make, tmp_path: Path
) -> None:
    with pytest.raises(SourceError, match="No clip was accepted"):
        finish_dataset(str(tmp_path / "none"), Ingested([], [], [], {}), AudioConfig(), DataConfig())
    manifest = make_dataset(source, tmp_path / "dataset")
    assert manifest.splits["train"].clips
    test = Shard(name="test-000000.tar", split="test", clips=1, bytes=1, sha256="")
    none_to_train_on = Ingested([ShardPlan(test.name, "test", ())], [WrittenShard(test, ())], [], {})
    with pytest.raises(DataError, match="train split"):
        finish_dataset(str(tmp_path / "none"), none_to_train_on, AudioConfig(), DataConfig())
    assert not (tmp_path / "none").exists()


def test_a_longer_list_of_files_keeps_every_earlier_clip_in_its_split(
    source: SourceConfig, make_dataset: Make, tmp_path: Path
) -> None:
    make_dataset(source, tmp_path / "one")
    rows = Path(source.uri, "captions.jsonl").read_text().splitlines()
    Path(source.uri, "captions.jsonl").write_text("\n".join(rows[:6]))
    make_dataset(source, tmp_path / "two")
    splits = [
        {row["key"]: row["split"] for row in pq.read_table(tmp_path / name / "index.parquet").to_pylist()}
        for name in ("one", "two")
    ]
    assert 0 < len(splits[1]) < len(splits[0])
    assert splits[1].items() <= splits[0].items()


def test_shards_are_filled_in_the_order_of_keys(source: SourceConfig, make_dataset: Make, tmp_path: Path) -> None:
    manifest = make_dataset(source, tmp_path / "dataset")
    rows = pq.read_table(tmp_path / "dataset/index.parquet").to_pylist()
    for split in ("train", "valid", "test"):
        keys = [row["key"] for row in rows if row["split"] == split]
        assert keys == sorted(keys)
        sizes = [shard.clips for shard in manifest.shards if shard.split == split]
        assert all(size == 3 for size in sizes[:-1])
