"""A small dataset of random latents with its stage folder, for the tests of trainings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sonarc.contracts import store
from sonarc.contracts.config import SonarcConfig
from sonarc.contracts.dataset import (
    INDEX_SCHEMA,
    DatasetManifest,
    LatentsManifest,
    Shard,
    SplitCount,
    write_dataset,
    write_latents,
)
from sonarc.contracts.hashing import sha256_bytes
from sonarc.contracts.result import Artifact, StageResult, write_result
from sonarc.data.latents import write_latent_shard

HOP = 1024
SHARD = "train-000000.tar"
WORDS = ("drum", "fiddle", "bell", "guitar", "organ")


def write_encode_stage(root: Path, config: SonarcConfig, clips: int = 24, seed: int = 0) -> str:
    """Write a dataset (without its audio), its latents and the encode stage's result; returns the stage's folder."""
    random = np.random.default_rng(seed)
    frames = config.audio.samples // HOP
    true_frames = random.integers(frames // 3, frames + 1, clips)
    true_frames[0] = frames
    latents = random.standard_normal((clips, config.dit.latent_channels, frames)).astype(np.float16)
    keys = [f"{n:020x}-000" for n in range(clips)]
    rows = [
        {
            "key": key,
            "captions": [f"a {WORDS[n % len(WORDS)]} sound", f"{WORDS[n % len(WORDS)]}, short"],
            "concept": f'{{"instrument":"{WORDS[n % len(WORDS)]}"}}',
            "group": f"group-{n}",
            "source": "test",
            "source_sha256": "0" * 64,
            "start_s": 0.0,
            "seconds": float(true_frames[n] * HOP / config.audio.sample_rate),
            "frames": int(true_frames[n] * HOP),
            "author": "",
            "licence": "CC0-1.0",
            "url": "",
            "loudness": -20.0,
            "weight": 1.0,
            "split": "train",
            "shard": SHARD,
            "offset": n,
            "bytes": 1,
        }
        for n, key in enumerate(keys)
    ]
    dataset, folder = root / "dataset", root / "stages" / "encode" / "key"
    dataset.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=INDEX_SCHEMA), dataset / "index.parquet")
    seconds = sum(row["seconds"] for row in rows)
    manifest = DatasetManifest(
        version=1,
        config_sha256="0" * 64,
        sample_rate=config.audio.sample_rate,
        channels=config.audio.channels,
        samples=config.audio.samples,
        clips=clips,
        seconds=seconds,
        splits={"train": SplitCount(clips=clips, groups=clips, seconds=seconds)},
        shards=(Shard(name=SHARD, split="train", clips=clips, bytes=1, sha256="0" * 64),),
        index_sha256=sha256_bytes((dataset / "index.parquet").read_bytes()),
        quarantine_sha256="0" * 64,
    )
    write_dataset(dataset.as_uri(), manifest)
    place = (folder / "latents").as_uri()
    described = LatentsManifest(
        dataset_uri=dataset.as_uri(),
        dataset_sha256=manifest.sha256(),
        codec="test",
        encoder_sha256="1" * 64,
        channels=config.dit.latent_channels,
        frames=frames,
        hop=HOP,
        shards=(write_latent_shard(place, SHARD, keys, latents, root),),
    )
    write_latents(place, described)
    output = Artifact(uri=place, sha256=described.sha256())
    result = StageResult(stage="encode", key="key", status="succeeded", outputs={"latents": output})
    write_result(store.as_uri(folder), result)
    return store.as_uri(folder)
