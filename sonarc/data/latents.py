"""Latents on disk, bound to the dataset and the codec that made them, and mapped for training.

One tar stands beside each dataset shard: `<key>.latent.npy`, float16, latent channels × frames.
Shapes: N clips, C latent channels, T latent frames.
"""

from __future__ import annotations

import io
import math
import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from sonarc.contracts import store
from sonarc.contracts.dataset import LatentShard, LatentsManifest, Split, read_dataset, read_latents
from sonarc.contracts.errors import DataError, StoreError
from sonarc.contracts.hashing import sha256_json, sha256_path
from sonarc.data.reader import read_index
from sonarc.data.shards import ShardWriter, open_shard

KEPT = 12
"""Gathered files that stay in the cache: the three splits of four datasets."""
_AGAIN = "Encode the dataset again with the encode stage."


@dataclass(frozen=True)
class LatentSet:
    """The latents of one split, in the order of the index.

    Attributes:
        latents_NCT: float16, mapped from disk; frames behind a clip's true length are the codec's view of the padding.
        frames_N: true latent frames of each clip.
        seconds_N: true length of each clip, seconds.
        captions: the captions of each clip.
        concepts: canonical JSON of the facts behind them.
        weights_N: how often each clip is drawn, against 1.
        hop: audio samples a latent frame.
    """

    latents_NCT: NDArray[np.float16]
    frames_N: NDArray[np.int64]
    seconds_N: NDArray[np.float32]
    captions: list[list[str]]
    concepts: list[str]
    groups: list[str]
    keys: list[str]
    weights_N: NDArray[np.float64]
    hop: int

    def __len__(self) -> int:
        return len(self.keys)

    def check_finite(self) -> None:
        """Refuse latents that no training may see.

        Raises:
            DataError: a clip holds NaN or infinity.
        """
        bad = [key for key, z_CT in zip(self.keys, self.latents_NCT, strict=True) if not np.isfinite(z_CT).all()]
        if bad:
            raise DataError(
                f"The latents of {len(bad)} clips, such as {bad[0]}, hold NaN or infinity.", "Encode the dataset again."
            )


def write_latent_shard(
    uri: str, name: str, keys: Sequence[str], latents_NCT: NDArray[np.float16], scratch: Path
) -> LatentShard:
    """Write the latents of the dataset shard `name` into the latents folder `uri`.

    Raises:
        DataError: a value is not finite, so the codec or the audio is at fault.
    """
    if not np.isfinite(latents_NCT).all():
        bad = next(key for key, latent_CT in zip(keys, latents_NCT, strict=True) if not np.isfinite(latent_CT).all())
        raise DataError(f"The codec's latents of {bad} are not finite in half precision.", "Check the codec's weights.")
    path = scratch / name
    offsets = {}
    try:
        with ShardWriter(path) as writer:
            for key, latent_CT in zip(keys, latents_NCT, strict=True):
                content = _npy(latent_CT)
                header = len(content) - latent_CT.nbytes
                offsets[key] = writer.write(key, {"latent.npy": content})["latent.npy"] + header
        shard = LatentShard(name=name, sha256=sha256_path(path), bytes=path.stat().st_size, offsets=offsets)
        store.move_in(path, store.join(uri, name))
    finally:
        path.unlink(missing_ok=True)
    return shard


def _npy(latent_CT: NDArray[np.float16]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(latent_CT, dtype="<f2"), allow_pickle=False)
    return buffer.getvalue()


def load_latents(latents_uri: str, dataset_uri: str, split: Split, *, encoder_sha256: str | None = None) -> LatentSet:
    """The latents of one split with what the index says of their clips.

    Args:
        encoder_sha256: the codec's encoder that must have made them, if the caller has one.

    Raises:
        DataError: latents of another dataset or codec, damaged, or without one of the split's clips.
    """
    manifest = read_latents(latents_uri)
    check_bound(manifest, latents_uri, read_dataset(dataset_uri).sha256(), encoder_sha256)
    index = read_index(dataset_uri, split)
    keys = index["key"].to_pylist()
    return LatentSet(
        latents_NCT=_mapped(manifest, latents_uri, split, keys),
        frames_N=-(-index["frames"].to_numpy() // manifest.hop),
        seconds_N=index["seconds"].to_numpy().astype(np.float32),
        captions=index["captions"].to_pylist(),
        concepts=index["concept"].to_pylist(),
        groups=index["group"].to_pylist(),
        keys=keys,
        weights_N=index["weight"].to_numpy(),
        hop=manifest.hop,
    )


def _mapped(manifest: LatentsManifest, uri: str, split: Split, keys: Sequence[str]) -> NDArray[np.float16]:
    """The latents of some clips `(N, C, T)`, mapped from a file in the user's cache.

    The file is gathered from the shards, each checked against its hash, when it is first needed on a machine: then any
    clip is one read away, memory stays flat however many there are, and the workers of a machine share it.
    """
    shape = (len(keys), manifest.channels, manifest.frames)
    folder = store.cache_root() / "latents"
    path = folder / f"{sha256_json([manifest.sha256(), split, list(keys)])[:32]}.f16"
    locks = store.cache_root() / "locks"
    for needed in (folder, locks):
        needed.mkdir(parents=True, exist_ok=True)
    with FileLock(locks / f"{path.name}.lock"):  # a machine's workers start together: one gathers, the others wait
        if not path.is_file() or path.stat().st_size != 2 * math.prod(shape):
            temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
            try:
                _gather(manifest, uri, split, keys, temporary, shape)
                temporary.replace(path)
            except OSError as error:
                raise StoreError(
                    f"The latents' {2 * math.prod(shape) / 1e6:,.0f} MB could not be kept in {folder}: {error}.",
                    "Free some space, or set SONARC_CACHE to a folder that has it.",
                ) from error
            finally:
                temporary.unlink(missing_ok=True)
            _tidy(folder)
        os.utime(path)
    return np.memmap(path, "<f2", "r", shape=shape) if keys else np.zeros(shape, np.float16)


def _gather(
    manifest: LatentsManifest, uri: str, split: Split, keys: Sequence[str], path: Path, shape: tuple[int, ...]
) -> None:
    position = {key: n for n, key in enumerate(keys)}
    size = 2 * math.prod(shape[1:])
    found = 0
    with path.open("wb") as file:
        file.truncate(size * len(keys))
        for shard in manifest.shards:
            wanted = {key: offset for key, offset in shard.offsets.items() if key in position}
            if not wanted:
                continue
            with open_shard(store.join(uri, shard.name), sha256=shard.sha256, size=shard.bytes) as reader:
                for key, offset in wanted.items():
                    file.seek(position[key] * size)
                    file.write(reader.read(offset, size))
                    found += 1
    if found != len(keys):
        raise DataError(f"The latents at {uri} lack {len(keys) - found} clips of the split {split!r}.", _AGAIN)


def _tidy(folder: Path) -> None:
    """Of the gathered files only the last used stay."""
    files = sorted(folder.glob("*.f16"), key=lambda path: path.stat().st_mtime, reverse=True)
    for old in files[KEPT:]:
        old.unlink(missing_ok=True)  # whoever has it mapped keeps it until the end


def check_bound(manifest: LatentsManifest, uri: str, dataset_sha256: str, encoder_sha256: str | None = None) -> None:
    """Latents are only good for the dataset and the encoder that made them.

    Raises:
        DataError: they belong to another.
    """
    if manifest.dataset_sha256 != dataset_sha256:
        raise DataError(
            f"The latents at {uri} belong to the dataset {manifest.dataset_sha256[:12]}…, not {dataset_sha256[:12]}….",
            _AGAIN,
        )
    if encoder_sha256 is not None and manifest.encoder_sha256 != encoder_sha256:
        raise DataError(
            f"The latents at {uri} were made by the encoder {manifest.encoder_sha256[:12]}…, "
            f"not {encoder_sha256[:12]}….",
            _AGAIN,
        )
