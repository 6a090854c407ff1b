"""What ARC's loader costs: the first epoch of a dataset new to the machine, against training steps and plain tars.

python -m sonarc.bench.loading LATENTS DATASET BATCH     # as the loader reads them
python -m sonarc.bench.loading LATENTS DATASET 0         # as tars, one after the other
"""

from __future__ import annotations

import argparse
import json
import tarfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from sonarc.bench.own_process import in_own_process
from sonarc.bench.s3_server import s3_server
from sonarc.bench.sheet import BenchRow, measured
from sonarc.bench.training import SIZES, Size, arc_steps
from sonarc.contracts import store
from sonarc.contracts.config import ArcConfig, TextConfig
from sonarc.contracts.dataset import read_latents


@dataclass(frozen=True)
class LoaderSize:
    """Clips of the dataset, how often its first epoch is timed, and the training beside it."""

    clips: int = 8_192
    repeats: int = 3
    training: Size = SIZES["small"]


def loader_rows(folder: Path, size: LoaderSize) -> Iterator[BenchRow]:
    """The loader on a disk and on S3, and the ARC step that its batches are for."""
    steps, _, _ = arc_steps(size.training)
    step, batch = median(steps), size.training.arc_batch
    yield measured("arc_step", steps, "s", "lower")
    with s3_server(folder / "buckets") as server:
        places = {
            "disk": ((folder / "disk").as_uri(), {}),
            "s3": (store.join(server.uri, "bench"), server.environment()),
        }
        for name, (uri, env) in places.items():
            in_own_process("sonarc.bench.random_latents", uri, str(size.clips), str(size.training.frames), env=env)
            loaders, gathers, tars = list[float](), list[float](), list[float]()
            for _ in range(size.repeats):
                found = _in_fresh_cache(uri, batch, env)
                gathers.append(found["gather"])
                loaders.append(found["gather"] + found["epoch"])
                tars.append(_in_fresh_cache(uri, 0, env)["seconds"])
            count = size.clips // (2 * batch)
            ratios = [seconds / count / step for seconds in loaders]
            yield measured(f"loader_over_arc_step.{name}", ratios, "", "lower", wanted=0.1)
            yield measured(f"loader_gather_clips_per_s.{name}", [size.clips / s for s in gathers], "clips/s", "higher")
            shares = [tar / loader for tar, loader in zip(tars, loaders, strict=True)]
            yield measured(f"loader_fraction_of_tar.{name}", shares, "", "higher", floor=1.0)


def first_epoch(latents_uri: str, dataset_uri: str, batch: int) -> dict[str, float]:
    """Seconds to gather the latents, and to make every batch of an epoch, both sides of each ARC step."""
    from sonarc.arc.batches import ArcData
    from sonarc.data import load_latents
    from sonarc.text import load_text_encoder

    encoder = load_text_encoder(TextConfig())
    begun = time.perf_counter()
    latents = load_latents(latents_uri, dataset_uri, "train")
    gather = time.perf_counter() - begun
    data = ArcData(latents, encoder, ArcConfig(batch=batch), patch=1)
    begun = time.perf_counter()
    for step in range(len(latents) // (2 * batch)):
        data(step, "discriminator")
        data(step, "generator")
    return {"gather": gather, "epoch": time.perf_counter() - begun}


def tars_in_order(latents_uri: str) -> dict[str, float]:
    """Seconds to read every member of every tar, one after the other, trusting them."""
    manifest = read_latents(latents_uri)
    fs, folder = store.filesystem(latents_uri)
    begun = time.perf_counter()
    for shard in manifest.shards:
        with fs.open(f"{folder}/{shard.name}", "rb") as file, tarfile.open(fileobj=file, mode="r|") as tar:
            for member in tar:
                content = tar.extractfile(member)
                assert content is not None  # a regular file
                content.read()
    return {"seconds": time.perf_counter() - begun}


def _in_fresh_cache(uri: str, batch: int, env: Mapping[str, str]) -> dict[str, Any]:
    with TemporaryDirectory(prefix="sonarc-bench-") as cache:
        return in_own_process(
            "sonarc.bench.loading",
            store.join(uri, "stages/encode/key/latents"), store.join(uri, "dataset"), str(batch),
            env={**env, "SONARC_CACHE": cache},
        )  # fmt: skip


def main() -> None:
    """Measure one way of reading and print its seconds as a line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m sonarc.bench.loading", description=main.__doc__)
    parser.add_argument("latents")
    parser.add_argument("dataset")
    parser.add_argument("batch", type=int, help="clips a batch; 0: read the tars in order")
    asked = parser.parse_args()
    found = first_epoch(asked.latents, asked.dataset, asked.batch) if asked.batch else tars_in_order(asked.latents)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
