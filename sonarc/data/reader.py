"""Read a dataset's clips back, as training, the reference set and evaluation see them."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sonarc.audio import decode_flac
from sonarc.contracts import store
from sonarc.contracts.dataset import INDEX_SCHEMA, DatasetManifest, Shard, Split, read_dataset
from sonarc.contracts.errors import DataError
from sonarc.contracts.hashing import sha256_bytes
from sonarc.data.shards import open_shard


@dataclass(frozen=True)
class Clip:
    """One clip.

    Attributes:
        audio_AS: float32 `(2, S)`, zero-padded to the dataset's length.
        seconds: true length.
        row: its row of the index.
    """

    key: str
    audio_AS: NDArray[np.float32]
    seconds: float
    row: dict[str, Any]


def read_index(dataset_uri: str, split: Split | None = None) -> pa.Table:
    """The index, all of it or one split, in the order of the shards.

    Raises:
        DataError: it is not the index that the manifest names.
    """
    return _index(dataset_uri, read_dataset(dataset_uri), split)


def read_clips(dataset_uri: str, split: Split | None = None, keys: Collection[str] | None = None) -> Iterator[Clip]:
    """The clips of a split (or of all), or only those with the given keys, in the order of the shards.

    Raises:
        DataError: a shard or the index is not what the manifest names, or a key is not in it.
    """
    manifest = read_dataset(dataset_uri)
    index = _index(dataset_uri, manifest, split)
    if keys is not None:
        wanted = set(keys)
        index = index.filter(pc.is_in(index["key"], value_set=pa.array(sorted(wanted), pa.string())))
        if missing := wanted - set(index["key"].to_pylist()):
            raise DataError(
                f"{len(missing)} keys, such as {min(missing)}, are not in the dataset {dataset_uri}.",
                "Ask for keys of its index.",
            )
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in index.to_pylist():
        rows.setdefault(row["shard"], []).append(row)
    for shard in manifest.shards:
        if shard.name in rows:
            yield from read_shard(dataset_uri, manifest, shard, rows[shard.name])


def read_shard(
    dataset_uri: str, manifest: DatasetManifest, shard: Shard, rows: Iterable[dict[str, Any]]
) -> Iterator[Clip]:
    """The clips of one shard that `rows` of the index name.

    Raises:
        DataError: the shard is not what the manifest names.
    """
    uri = store.join(dataset_uri, "shards", shard.name)
    with open_shard(uri, sha256=shard.sha256, size=shard.bytes) as reader:
        for row in rows:
            yield _clip(reader.read(row["offset"], row["bytes"]), row, manifest)


def _clip(flac: bytes, row: dict[str, Any], manifest: DatasetManifest) -> Clip:
    audio_AS = np.zeros((manifest.channels, manifest.samples), np.float32)
    audio_AS[:, : row["frames"]] = decode_flac(flac, sample_rate=manifest.sample_rate, frames=row["frames"])
    return Clip(row["key"], audio_AS, row["seconds"], row)


def _index(dataset_uri: str, manifest: DatasetManifest, split: Split | None) -> pa.Table:
    uri = store.join(dataset_uri, "index.parquet")
    data = store.read_bytes(uri)
    if sha256_bytes(data) != manifest.index_sha256:
        raise DataError(
            f"{uri} is not the index that dataset.json names.", "Make the dataset again with the ingest stage."
        )
    table = pq.read_table(io.BytesIO(data), schema=INDEX_SCHEMA)
    return table if split is None else table.filter(pc.equal(table["split"], split))
