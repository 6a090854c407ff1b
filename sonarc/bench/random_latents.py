"""A dataset of random latents with its encode stage, for benchmarks and tests of trainings.

python -m sonarc.bench.random_latents URI CLIPS FRAMES
"""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path
from tempfile import TemporaryDirectory

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
from sonarc.contracts.presets import load
from sonarc.contracts.result import Artifact, StageResult, write_result
from sonarc.data.latents import write_latent_shard

HOP = 1024
WORDS = ("drum", "fiddle", "bell", "guitar", "organ")


def write_encode_stage(
    root: str | Path, config: SonarcConfig, clips: int = 24, seed: int = 0, shard_clips: int = 256
) -> str:
    """Write a dataset (without its audio), its latents and the encode stage's result; returns the stage's folder."""
    random = np.random.default_rng(seed)
    frames = config.audio.samples // HOP
    true_frames = random.integers(frames // 3, frames + 1, clips)
    true_frames[0] = frames
    latents_NCT = random.standard_normal((clips, config.dit.latent_channels, frames)).astype(np.float16)
    rows = [_row(n, int(true_frames[n]), config, f"train-{n // shard_clips:06d}.tar") for n in range(clips)]
    keys = [str(row["key"]) for row in rows]
    parts = [slice(start, min(start + shard_clips, clips)) for start in range(0, clips, shard_clips)]
    dataset, place = store.join(store.as_uri(root), "dataset"), store.join(store.as_uri(root), "stages/encode/key")
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=INDEX_SCHEMA), buffer)
    seconds = float(true_frames.sum()) * HOP / config.audio.sample_rate
    names = [str(rows[part.start]["shard"]) for part in parts]
    manifest = DatasetManifest(
        version=1,
        config_sha256="0" * 64,
        sample_rate=config.audio.sample_rate,
        channels=config.audio.channels,
        samples=config.audio.samples,
        clips=clips,
        seconds=seconds,
        splits={"train": SplitCount(clips=clips, groups=clips, seconds=seconds)},
        shards=tuple(
            Shard(name=name, split="train", clips=part.stop - part.start, bytes=1, sha256="0" * 64)
            for name, part in zip(names, parts, strict=True)
        ),
        index_sha256=store.write_bytes(store.join(dataset, "index.parquet"), buffer.getvalue()),
        quarantine_sha256="0" * 64,
    )
    write_dataset(dataset, manifest)
    uri = store.join(place, "latents")
    with TemporaryDirectory(prefix="sonarc-latents-") as scratch:
        shards = [
            write_latent_shard(uri, name, keys[part], latents_NCT[part], Path(scratch))
            for name, part in zip(names, parts, strict=True)
        ]
    described = LatentsManifest(
        dataset_uri=dataset,
        dataset_sha256=manifest.sha256(),
        codec="test",
        encoder_sha256="1" * 64,
        channels=config.dit.latent_channels,
        frames=frames,
        hop=HOP,
        shards=tuple(shards),
    )
    write_latents(uri, described)
    output = Artifact(uri=uri, sha256=described.sha256())
    write_result(place, StageResult(stage="encode", key="key", status="succeeded", outputs={"latents": output}))
    return place


def _row(number: int, frames: int, config: SonarcConfig, shard: str) -> dict[str, object]:
    word = WORDS[number % len(WORDS)]
    return {
        "key": f"{number:020x}-000",
        "captions": [f"a {word} sound", f"{word}, short"],
        "concept": f'{{"instrument":"{word}"}}',
        "group": f"group-{number}",
        "source": "test",
        "source_sha256": "0" * 64,
        "start_s": 0.0,
        "seconds": frames * HOP / config.audio.sample_rate,
        "frames": frames * HOP,
        "author": "",
        "licence": "CC0-1.0",
        "url": "",
        "loudness": -20.0,
        "weight": 1.0,
        "split": "train",
        "shard": shard,
        "offset": number,
        "bytes": 1,
    }


def main() -> None:
    """Write one for the laptop's model, and print where as a line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m sonarc.bench.random_latents", description=main.__doc__)
    parser.add_argument("uri")
    parser.add_argument("clips", type=int)
    parser.add_argument("frames", type=int, help="latent frames of a clip")
    asked = parser.parse_args()
    print(
        json.dumps(write_encode_stage(asked.uri, load("laptop", [f"audio.samples={HOP * asked.frames}"]), asked.clips))
    )


if __name__ == "__main__":
    main()
