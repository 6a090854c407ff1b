"""A small captioned dataset of tones and hisses, its latents by a random codec, and a random CLAP."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from sounds import noise, tone

from sonarc.audio import encode_flac
from sonarc.codec.package import load_codec
from sonarc.contracts import store
from sonarc.contracts.config import SonarcConfig, TextConfig
from sonarc.contracts.dataset import LatentsManifest, read_dataset, write_latents
from sonarc.contracts.result import Artifact, StageResult, write_result
from sonarc.data.ingest import ClipRow, Ingested, finish_dataset, plan_shards, write_shard
from sonarc.data.latents import write_latent_shard
from sonarc.data.reader import read_index, read_shard
from sonarc.data.sources import Refusal
from sonarc.metrics.embedders.clap import ClapConfig, ClapNetwork
from sonarc.text import load_text_encoder

GROUPS = 40


def ingest(root: Path, config: SonarcConfig, refused: Sequence[Refusal] = ()) -> str:
    """The ingest stage's outcome: forty groups of two clips, and what was refused; the dataset's URI."""
    rows, flacs = [], {}
    for number in range(2 * GROUPS):
        sound, name = (noise, "hiss") if number % 2 else (tone, "tone")
        clip = sound(0.3 + 0.2 * (number % 3 == 0), level=0.05 + 0.002 * number)
        key = f"{number:020x}-000"
        flacs[key] = encode_flac(clip, 44_100)
        rows.append(
            ClipRow(
                key=key,
                captions=(f"a {name}", f"the sound of a {name}"),
                concept=f'{{"kind":"{name}"}}',
                group=f"group {number // 2}",
                source="toy",
                source_sha256="",
                start_s=0.0,
                seconds=clip.shape[1] / 44_100,
                frames=clip.shape[1],
                author="",
                licence="CC0-1.0",
                url="",
                loudness=-20.0,
                weight=1.0,
                stereo=False,
            )
        )
    uri = (root / "ingest" / "dataset").as_uri()
    plans = plan_shards(rows, config.data)
    written = [write_shard(uri, plan, flacs.__getitem__, root) for plan in plans]
    manifest = finish_dataset(uri, Ingested(plans, written, refused, {}), config.audio, config.data)
    leave(root, "ingest", "dataset", uri, manifest.sha256())
    return uri


def encode(root: Path, config: SonarcConfig) -> None:
    """The encode stage's outcome."""
    dataset = (root / "ingest" / "dataset").as_uri()
    codec, manifest, uri = load_codec(config.codec.uri), read_dataset(dataset), (root / "encode" / "latents").as_uri()
    index = read_index(dataset).to_pylist()
    shards = []
    for shard in manifest.shards:
        clips = list(read_shard(dataset, manifest, shard, [row for row in index if row["shard"] == shard.name]))
        with torch.inference_mode():
            latents = codec.encode(torch.from_numpy(np.stack([clip.audio_AS for clip in clips])))
        keys = [clip.key for clip in clips]
        shards.append(write_latent_shard(uri, shard.name, keys, latents.numpy().astype(np.float16), root))
    described = LatentsManifest(
        dataset_uri=dataset,
        dataset_sha256=manifest.sha256(),
        codec=config.codec.uri,
        encoder_sha256=codec.encoder_sha256,
        channels=codec.latent_channels,
        frames=codec.frames(manifest.samples),
        hop=codec.hop,
        shards=tuple(shards),
    )
    write_latents(uri, described)
    leave(root, "encode", "latents", uri, described.sha256())


def random_clap(root: Path) -> str:
    """The URI of a random small CLAP."""
    encoder = load_text_encoder(TextConfig())
    config = ClapConfig(widths=(16, 32), text_encoder=encoder.name, text_encoder_sha256=encoder.sha256)
    torch.manual_seed(0)
    weights = {k: v.half() for k, v in ClapNetwork(config).state_dict().items() if v.is_floating_point()}
    uri = (root / "clap").as_uri()
    store.write_bytes(store.join(uri, "model.safetensors"), safetensors.torch.save(weights))
    store.write_json(store.join(uri, "config.json"), config.model_dump(mode="json"))
    return uri


def leave(root: Path, stage: str, output: str, uri: str, sha256: str) -> None:
    outputs = {output: Artifact(uri=uri, sha256=sha256)}
    write_result((root / stage).as_uri(), StageResult(stage=stage, key="0", status="succeeded", outputs=outputs))
