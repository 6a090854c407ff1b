"""A dataset: `dataset.json`, `shards/*.tar`, `index.parquet`, `quarantine.parquet`.

A shard counts only once the manifest names it; the manifest is written last.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import Any, Literal, TypeVar

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sonarc.contracts import store
from sonarc.contracts.config import AudioConfig, DataConfig
from sonarc.contracts.errors import DataError
from sonarc.contracts.hashing import sha256_json

M = TypeVar("M", bound=BaseModel)
Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")

INDEX_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("captions", pa.list_(pa.string())),
        ("concept", pa.string()),  # canonical JSON of the facts behind the captions
        ("group", pa.string()),
        ("source", pa.string()),
        ("source_sha256", pa.string()),
        ("start_s", pa.float64()),
        ("seconds", pa.float64()),  # true length, before padding
        ("frames", pa.int64()),  # true samples a channel, before padding
        ("author", pa.string()),
        ("licence", pa.string()),
        ("url", pa.string()),
        ("loudness", pa.float64()),  # LUFS of the source segment, before normalisation
        ("weight", pa.float64()),
        ("split", pa.string()),
        ("shard", pa.string()),
        ("offset", pa.int64()),  # of the FLAC's bytes in the shard
        ("bytes", pa.int64()),  # of the FLAC
    ]
)
"""A row a clip, ordered by (split, shard, offset)."""

QUARANTINE_SCHEMA = pa.schema(
    [
        ("source", pa.string()),
        ("path", pa.string()),
        ("source_sha256", pa.string()),  # empty when the bytes could not be read
        ("reason", pa.string()),
        ("detail", pa.string()),
    ]
)
"""A row a refused input."""

INPUTS_SCHEMA = pa.schema(
    [
        ("source", pa.string()),
        ("path", pa.string()),
        ("source_sha256", pa.string()),
        ("seconds", pa.float64()),  # of all its clips
        ("fingerprint", pa.binary()),  # float16, see sonarc.data.near
    ]
)
"""A row an accepted file: what the next version need not look at again."""


class Reason(StrEnum):
    """Why an input was refused."""

    EMPTY = "empty_file"
    NOT_AUDIO = "not_audio"
    CORRUPT = "corrupt"
    CRASHED = "crashed"
    TRUNCATED = "truncated"
    TOO_LARGE = "too_large"
    BAD_RATE = "bad_sample_rate"
    BAD_CHANNELS = "bad_channels"
    NON_FINITE = "non_finite"
    SILENT = "silent"
    CLIPPED = "clipped"
    NARROW = "false_bandwidth"
    TOO_SHORT = "too_short"
    DUPLICATE = "duplicate"
    NEAR_DUPLICATE = "near_duplicate"
    NO_CAPTION = "no_caption"
    BAD_CAPTION = "bad_caption"
    MISSING = "missing_file"
    UNSAFE_PATH = "unsafe_path"
    BLOCKED = "blocked_address"
    UNREACHABLE = "unreachable"


class Shard(BaseModel):
    """One tar of clips."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^(train|valid|test)-\d{4,}\.tar$")
    split: Split
    clips: int = Field(ge=1)
    bytes: int = Field(ge=1)
    sha256: str


class SplitCount(BaseModel):
    """How much of the dataset is in one split."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    clips: int = 0
    groups: int = 0
    seconds: float = 0.0


class DatasetManifest(BaseModel):
    """`dataset.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    schema_: Literal["sonarc.dataset/1"] = Field(default="sonarc.dataset/1", alias="schema")
    version: int = Field(ge=1)
    parent: str | None = None
    """sha256 of the parent dataset's manifest."""
    config_sha256: str
    sample_rate: int
    channels: int
    samples: int
    """Padded length of every clip, samples a channel."""
    clips: int
    seconds: float
    splits: dict[Split, SplitCount]
    shards: tuple[Shard, ...]
    index_sha256: str
    quarantine_sha256: str
    quarantined: dict[str, int] = {}
    """Reason code → refused inputs."""
    inputs_sha256: str = ""
    """Of `inputs.parquet`; empty in datasets from before there was one, which cannot grow."""

    def sha256(self) -> str:
        """The dataset's hash: it covers every shard through the shard hashes."""
        unknown = set() if self.inputs_sha256 else {"inputs_sha256"}
        return sha256_json(self.model_dump(mode="json", by_alias=True, exclude=unknown))


def settings_sha256(audio: AudioConfig, data: DataConfig) -> str:
    """Hash of the settings that shape a dataset; where its sources lie is not one of them."""
    told = data.model_dump(mode="json", exclude={"sources": {"__all__": {"uri", "audio"}}, "fetch": True})
    return sha256_json({"audio": audio.model_dump(mode="json"), "data": told})


def lineage_sha256(audio: AudioConfig, data: DataConfig) -> str:
    """What datasets have in common of which one can grow from the other: their shape, and their name.

    Without a name, the names of the sources stand for it; their weights and licences may change on the way.
    """
    shape = data.model_dump(mode="json", exclude={"sources", "fetch", "name"})
    named = data.name or sorted(source.name for source in data.sources)
    return sha256_json({"audio": audio.model_dump(mode="json"), "data": shape, "named": named})


def split_of(group: str, train: float = 0.7, valid: float = 0.1) -> Split:
    """The split of a group: a function of its name alone, so it never moves and near copies stay together."""
    point = int.from_bytes(hashlib.sha256(group.encode("utf-8")).digest()[:8], "big") / 2**64
    if point < train:
        return "train"
    return "valid" if point < train + valid else "test"


def clip_key(source_sha256: str, segment: int) -> str:
    """`<20 hex digits>-<segment>`: no dots, safe in a tar and in a URL."""
    return f"{source_sha256[:20]}-{segment:03d}"


def read_dataset(uri: str) -> DatasetManifest:
    """The manifest of the dataset folder at `uri`."""
    return _read(DatasetManifest, store.join(uri, "dataset.json"))


def write_dataset(uri: str, manifest: DatasetManifest) -> None:
    """Write `dataset.json`: the last act of making a dataset."""
    store.write_json(store.join(uri, "dataset.json"), manifest.model_dump(mode="json", by_alias=True))


class LatentShard(BaseModel):
    """The latents of one dataset shard."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    """Name of the dataset shard it stands beside."""
    sha256: str
    bytes: int
    offsets: dict[str, int]
    """key → offset of the array's raw bytes (after the npy header) in the tar."""


class LatentsManifest(BaseModel):
    """`latents.json`: latents bound to the dataset and to the half of the codec that made them."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    schema_: Literal["sonarc.latents/1"] = Field(default="sonarc.latents/1", alias="schema")
    dataset_uri: str
    dataset_sha256: str
    codec: str
    """The codec's configured location."""
    encoder_sha256: str
    """The codec's encoder: another decoder for the same latents leaves them, and what learnt from them, valid."""
    channels: int
    frames: int
    """Latent frames of a padded clip."""
    hop: int
    """Samples a latent frame."""
    shards: tuple[LatentShard, ...]

    def sha256(self) -> str:
        """The latents' hash; the place they lie in does not enter it."""
        return sha256_json(self.model_dump(mode="json", by_alias=True, exclude={"dataset_uri", "codec"}))


def read_latents(uri: str) -> LatentsManifest:
    """The manifest of the latents folder at `uri`."""
    return _read(LatentsManifest, store.join(uri, "latents.json"))


def write_latents(uri: str, manifest: LatentsManifest) -> None:
    """Write `latents.json`: the last act of encoding."""
    store.write_json(store.join(uri, "latents.json"), manifest.model_dump(mode="json", by_alias=True))


def _read(model: type[M], uri: str) -> M:
    document: Any = store.read_json(uri)
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise DataError(
            f"{uri} does not follow its schema: {error}.", "Make it again with the stage that wrote it."
        ) from error
