"""Encode: the latents of every clip, one tar beside each dataset shard, on Ray actors that load the codec once.

The latents of a shard are kept under the hashes of the shard and the encoder, so that a dataset that has grown costs
what is new in it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import ray
from ray.util import ActorPool

from ray_jobs.job import Outcome, StageContext, main
from ray_jobs.parallel import plain_errors
from sonarc.contracts import store
from sonarc.contracts.config import SonarcConfig
from sonarc.contracts.dataset import (
    DatasetManifest,
    LatentShard,
    LatentsManifest,
    Shard,
    read_dataset,
    write_latents,
)
from sonarc.contracts.errors import DataError, StoreError
from sonarc.contracts.hashing import sha256_json
from sonarc.contracts.result import Artifact
from sonarc.data.latents import write_latent_shard
from sonarc.data.reader import read_index, read_shard

NOTE = "encoded.json"


@dataclass(frozen=True)
class Encoded:
    """A shard's latents in the store, with the sums behind their mean and deviation."""

    shard: LatentShard
    values: int
    total: float
    squares: float


@dataclass(frozen=True)
class Bond:
    """What binds latents to a codec."""

    encoder_sha256: str
    channels: int
    frames: int
    hop: int


class Encoder:
    """One process with the codec in memory.

    Args:
        dataset_uri: the dataset to encode.
        latents_uri: the folder that takes the latents.
    """

    def __init__(self, dataset_uri: str, latents_uri: str, manifest: DatasetManifest, config: SonarcConfig) -> None:
        self._dataset_uri, self._latents_uri, self._manifest = dataset_uri, latents_uri, manifest
        self._config = config

    def load(self) -> Bond:
        """Load the codec; its hash and the shape of its latents.

        Not done by the constructor, because Ray turns whatever an actor's constructor raises into its own error.

        Raises:
            CheckpointError: there is no such codec. DataError: the codec takes audio of another format.
        """
        import torch

        from sonarc.codec.package import load_codec

        torch.set_num_threads(1)  # one process a CPU is faster than one process on all
        uri, manifest = self._config.codec.uri, self._manifest
        codec = load_codec(uri)
        if (codec.sample_rate, codec.channels) != (manifest.sample_rate, manifest.channels):
            raise DataError(
                f"The codec {uri!r} takes {codec.channels} channels at {codec.sample_rate} Hz, "
                f"the dataset has {manifest.channels} at {manifest.sample_rate} Hz.",
                "Choose a codec of the dataset's format with codec.uri.",
            )
        self._device = "cuda" if self._config.compute.gpu else "cpu"
        self._codec = codec.to(self._device)
        return Bond(codec.encoder_sha256, codec.latent_channels, codec.frames(manifest.samples), codec.hop)

    def encode(self, shard: Shard, rows: list[dict[str, Any]], kept: str) -> Encoded:
        """Encode the clips of one shard and write their latents; keep them at the folder `kept`, too."""
        import torch

        clips = list(read_shard(self._dataset_uri, self._manifest, shard, rows))
        batches = []
        size = self._config.codec.batch
        for start in range(0, len(clips), size):
            audio_BAS = np.stack([clip.audio_AS for clip in clips[start : start + size]])
            latents_BCT = self._codec.encode(torch.from_numpy(audio_BAS).to(self._device))
            batches.append(latents_BCT.float().cpu().numpy())
        latents_NCT = np.concatenate(batches)
        with TemporaryDirectory(prefix="sonarc-latents-") as scratch:
            written = write_latent_shard(
                self._latents_uri,
                shard.name,
                [clip.key for clip in clips],
                latents_NCT.astype(np.float16),
                Path(scratch),
            )
        wide = latents_NCT.astype(np.float64)
        encoded = Encoded(written, wide.size, float(wide.sum()), float(np.square(wide).sum()))
        store.copy(store.join(self._latents_uri, shard.name), store.join(kept, shard.name))
        store.write_json(store.join(kept, NOTE), {**asdict(encoded), "shard": written.model_dump(mode="json")})
        return encoded


def kept_at(store_uri: str, bond: Bond, shard: Shard) -> str:
    """Where the latents of a shard are kept, by what they depend on."""
    name = sha256_json({**asdict(bond), "shard": shard.sha256})
    return store.join(store_uri, "encoded", name[:32])


def take_kept(kept: str, latents_uri: str) -> Encoded | None:
    """Latents from before, copied into `latents_uri`; None if there are none."""
    if not store.exists(store.join(kept, NOTE)):
        return None
    told = store.read_json(store.join(kept, NOTE))
    shard = LatentShard.model_validate(told.pop("shard"))
    try:
        store.copy(store.join(kept, shard.name), store.join(latents_uri, shard.name))
    except StoreError:  # somebody has tidied up
        return None
    return Encoded(shard, **told)


def run(context: StageContext) -> Outcome:
    """Encode the dataset with the configured codec."""
    dataset = context.input("ingest", "dataset")
    manifest = read_dataset(dataset.uri)
    latents = store.join(context.folder, "latents")
    store.remove_folder(latents)  # of an attempt that was killed: no manifest, so it never counted

    rows: dict[str, list[dict[str, Any]]] = {}
    for row in read_index(dataset.uri).select(["key", "shard", "offset", "bytes", "frames", "seconds"]).to_pylist():
        rows.setdefault(row["shard"], []).append(row)
    compute = context.config.compute
    remote = ray.remote(num_cpus=1, num_gpus=int(compute.gpu))(Encoder)
    count = min(compute.data_tasks, len(manifest.shards))
    encoders = [remote.remote(dataset.uri, latents, manifest, context.config) for _ in range(count)]
    context.progress(0, manifest.clips, unit="clips", message="loading the codec")
    encoded: list[Encoded] = []
    with plain_errors():
        bond: Bond = ray.get([encoder.load.remote() for encoder in encoders])[0]
        jobs = []
        for shard in manifest.shards:
            kept = kept_at(context.request.store, bond, shard)
            if (found := take_kept(kept, latents)) is None:
                jobs.append((shard, rows[shard.name], kept))
            else:
                encoded.append(found)
        done = sum(len(result.shard.offsets) for result in encoded)
        for result in ActorPool(encoders).map(lambda encoder, job: encoder.encode.remote(*job), jobs):
            encoded.append(result)
            done += len(result.shard.offsets)
            context.progress(done, manifest.clips, unit="clips")
    for encoder in encoders:
        ray.kill(encoder)
    encoded_by_name = {result.shard.name: result for result in encoded}
    encoded = [encoded_by_name[shard.name] for shard in manifest.shards]

    described = LatentsManifest(
        dataset_uri=dataset.uri,
        dataset_sha256=manifest.sha256(),
        codec=context.config.codec.uri,
        encoder_sha256=bond.encoder_sha256,
        channels=bond.channels,
        frames=bond.frames,
        hop=bond.hop,
        shards=tuple(result.shard for result in encoded),
    )
    write_latents(latents, described)
    values = sum(result.values for result in encoded)
    mean = sum(result.total for result in encoded) / values
    deviation = (sum(result.squares for result in encoded) / values - mean**2) ** 0.5
    return Outcome(
        {"latents": Artifact(uri=latents, sha256=described.sha256())},
        metrics={"latent_mean": mean, "latent_std": deviation},
        counts={"clips": done, "shards": len(encoded), "new_shards": len(jobs)},
    )


if __name__ == "__main__":
    main("encode")
