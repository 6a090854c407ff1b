from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sonarc.contracts.config import SourceConfig
from sonarc.contracts.dataset import DatasetManifest
from sonarc.contracts.errors import DataError
from sonarc.data import read_clips, read_index

Make = Callable[..., DatasetManifest]


def test_clips_come_back_padded_with_their_true_length(
    source: SourceConfig, make_dataset: Make, tmp_path: Path
) -> None:
    manifest = make_dataset(source, tmp_path / "dataset")
    clips = list(read_clips(str(tmp_path / "dataset")))
    assert [clip.key for clip in clips] == read_index(str(tmp_path / "dataset"))["key"].to_pylist()
    assert any(clip.row["frames"] < manifest.samples for clip in clips)
    for clip in clips:
        assert clip.audio_AS.shape == (2, manifest.samples)
        assert clip.audio_AS.dtype == np.float32
        assert not clip.audio_AS[:, clip.row["frames"] :].any()
        assert clip.audio_AS[:, : clip.row["frames"]].any()
        assert clip.seconds == clip.row["frames"] / manifest.sample_rate


def test_splits_and_keys_select(source: SourceConfig, make_dataset: Make, tmp_path: Path) -> None:
    manifest = make_dataset(source, tmp_path / "dataset")
    uri = str(tmp_path / "dataset")
    train = [clip.key for clip in read_clips(uri, "train")]
    assert len(train) == manifest.splits["train"].clips
    assert [clip.key for clip in read_clips(uri, "train", keys=train[1:3])] == train[1:3]
    assert list(read_clips(uri, keys=[])) == []
    with pytest.raises(DataError, match="not in the dataset"):
        next(read_clips(uri, "test", keys=train[:1]))


def test_a_damaged_shard_or_index_is_refused(source: SourceConfig, make_dataset: Make, tmp_path: Path) -> None:
    manifest = make_dataset(source, tmp_path / "dataset")
    shard = tmp_path / "dataset/shards" / manifest.shards[0].name
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-512])
    with pytest.raises(DataError, match=r"train-000000\.tar"):
        list(read_clips(str(tmp_path / "dataset")))
    shard.write_bytes(whole)
    index = tmp_path / "dataset/index.parquet"
    index.write_bytes(index.read_bytes()[:-1] + b"x")
    with pytest.raises(DataError, match="not the index"):
        list(read_clips(str(tmp_path / "dataset")))
