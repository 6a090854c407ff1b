"""How a dataset grows: a new version takes the parent's clips as they are and adds those of files it has not seen.

Keys, splits, shards and audio of old clips never move. What their sources now say of them (captions, facts, licence,
weight) is taken over into the index; their group stays, since it decides their split. A file that has gone from its
source leaves its clips.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sonarc.contracts import store
from sonarc.contracts.dataset import (
    INPUTS_SCHEMA,
    QUARANTINE_SCHEMA,
    DatasetManifest,
    Reason,
    Split,
    read_dataset,
)
from sonarc.contracts.errors import DataError
from sonarc.contracts.hashing import sha256_bytes
from sonarc.data.ingest import Accepted
from sonarc.data.near import Seen
from sonarc.data.reader import read_index
from sonarc.data.sources import Refusal, SourceFile

FOLLOWED = ("captions", "concept", "author", "licence", "url", "weight")
"""Columns of the index that follow the sources."""


@dataclass(frozen=True)
class Parent:
    """A dataset that is to grow.

    Attributes:
        rows: its index.
        inputs: the files it took, by (source, path).
        quarantine: what it refused.
    """

    uri: str
    manifest: DatasetManifest
    rows: list[dict[str, Any]]
    inputs: dict[tuple[str, str], Accepted]
    quarantine: list[Refusal]

    @classmethod
    def read(cls, uri: str) -> Parent:
        """The dataset at `uri`.

        Raises:
            DataError: its tables are not those that its manifest names.
        """
        manifest = read_dataset(uri)
        inputs = _table(uri, "inputs", manifest.inputs_sha256, INPUTS_SCHEMA)
        refused = _table(uri, "quarantine", manifest.quarantine_sha256, QUARANTINE_SCHEMA)
        refusals = [Refusal(**{**row, "reason": Reason(row["reason"])}) for row in refused.to_pylist()]
        return cls(
            uri,
            manifest,
            read_index(uri).to_pylist(),
            {
                (row["source"], row["path"]): Accepted(row["source_sha256"], row["seconds"], row["fingerprint"])
                for row in inputs.to_pylist()
            },
            refusals,
        )

    def after(self) -> dict[Split, int]:
        """How many shards of each split there are."""
        return dict(Counter(shard.split for shard in self.manifest.shards))

    def known(self) -> dict[str, str]:
        """sha256 → `source/path` of the files it took, or the source alone where the path holds other bytes by now."""
        named = {file.sha256: f"{source}/{path}" for (source, path), file in self.inputs.items()}
        return {row["source_sha256"]: row["source"] for row in self.rows} | named

    def said(self, file: SourceFile, digest: str) -> Refusal | bool | None:
        """What is known of a file with those bytes: its refusal, True if its clips are there, None if it is new."""
        taken = self.inputs.get((file.source, file.path))
        if taken is not None and taken.sha256 == digest:
            return True
        refusal = self._refused.get((file.source, file.path))
        return refusal if refusal is not None and refusal.source_sha256 == digest else None

    @cached_property
    def _refused(self) -> dict[tuple[str, str], Refusal]:
        return {(refusal.source, refusal.path): refusal for refusal in self.quarantine}

    def followed(self, files: Iterable[SourceFile]) -> list[dict[str, Any]]:
        """Its rows, with what the sources now say of them."""
        by_digest = {
            self.inputs[name].sha256: file for file in files if (name := (file.source, file.path)) in self.inputs
        }
        return [_followed(row, by_digest.get(row["source_sha256"])) for row in self.rows]

    def sounds(self, threshold: float) -> Seen:
        """The files it took, by how they sound."""
        seen = Seen(threshold)
        seen.add(
            [
                (f"{source}/{path}", file.seconds, np.frombuffer(file.fingerprint, np.float16))
                for (source, path), file in self.inputs.items()
            ]
        )
        return seen

    def copy_shards(self, uri: str) -> None:
        """Put its shards into another dataset folder."""
        for shard in self.manifest.shards:
            store.copy(store.join(self.uri, "shards", shard.name), store.join(uri, "shards", shard.name))


def _followed(row: dict[str, Any], file: SourceFile | None) -> dict[str, Any]:
    if file is None:
        return row
    return row | {name: getattr(file, name) for name in FOLLOWED} | {"captions": list(file.captions)}


def _table(uri: str, name: str, sha256: str, schema: pa.Schema) -> pa.Table:
    data = store.read_bytes(store.join(uri, f"{name}.parquet"))
    if sha256_bytes(data) != sha256:
        raise DataError(f"{name}.parquet of the dataset {uri} is not the one its manifest names.", "Make it again.")
    return pq.read_table(io.BytesIO(data), schema=schema)


@dataclass
class Stamps:
    """Which bytes lay behind which stamp: so that files which did not change are not read again.

    Only a help. It lies beside the datasets, not in one: times differ from machine to machine.
    """

    seen: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    """(source, path) → (stamp, sha256)."""

    SCHEMA = pa.schema([(name, pa.string()) for name in ("source", "path", "stamp", "sha256")])

    @classmethod
    def read(cls, uri: str) -> Stamps:
        """Those kept at `uri`; none if there are none, or they cannot be read."""
        if not store.exists(uri):
            return cls()
        try:
            table = pq.read_table(io.BytesIO(store.read_bytes(uri)), schema=cls.SCHEMA)
        except pa.ArrowException:
            return cls()
        return cls({(r["source"], r["path"]): (r["stamp"], r["sha256"]) for r in table.to_pylist()})

    def write(self, uri: str) -> None:
        """Keep them at `uri`."""
        rows = [
            {"source": source, "path": path, "stamp": stamp, "sha256": digest}
            for (source, path), (stamp, digest) in sorted(self.seen.items())
        ]
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows, schema=self.SCHEMA), buffer, compression="zstd")
        store.write_bytes(uri, buffer.getvalue())

    def digest(self, file: SourceFile) -> str:
        """The hash of a file's bytes, if its stamp is the one seen before; else empty."""
        stamp, digest = self.seen.get((file.source, file.path), ("", ""))
        return digest if stamp and stamp == file.stamp else ""

    def note(self, file: SourceFile, digest: str) -> None:
        """Remember a file's bytes."""
        if file.stamp and digest:
            self.seen[file.source, file.path] = (file.stamp, digest)


@dataclass(frozen=True)
class Latest:
    """`<store>/datasets/<lineage>.json`: the newest dataset of that lineage, and what it was made of.

    Attributes:
        dataset: its URI.
        sources_sha256: of the sources it was made from.
        parent: URI of the dataset it was made from; empty: none.
    """

    dataset: str
    sources_sha256: str
    parent: str

    @classmethod
    def read(cls, uri: str) -> Latest | None:
        """The one at `uri`, if its dataset is still there and can grow."""
        if not store.exists(uri):
            return None
        found = cls(**store.read_json(uri))
        if not store.exists(store.join(found.dataset, "dataset.json")):
            return None
        return found if read_dataset(found.dataset).inputs_sha256 else None

    def write(self, uri: str) -> None:
        """Make it the newest."""
        facts: Mapping[str, str] = {
            "dataset": self.dataset, "sources_sha256": self.sources_sha256, "parent": self.parent,
        }  # fmt: skip
        store.write_json(uri, facts)

    def parent_of(self, sources_sha256: str) -> str:
        """What a dataset of those sources grows from: the newest, or, if that is the one, what it grew from."""
        return self.parent if sources_sha256 == self.sources_sha256 else self.dataset


def places(store_uri: str, lineage_sha256: str) -> tuple[str, str]:
    """Where `Latest` and `Stamps` of datasets of a lineage lie."""
    name = lineage_sha256[:16]
    return store.join(store_uri, "datasets", f"{name}.json"), store.join(store_uri, "datasets", f"{name}.parquet")
