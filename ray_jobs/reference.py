"""Reference: pin the real clips that scores are measured against, or verify the set that is pinned."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from ray_jobs.job import Outcome, StageContext, main
from sonarc.contracts import store
from sonarc.contracts.dataset import DatasetManifest, Split, read_dataset
from sonarc.contracts.errors import DataError
from sonarc.contracts.reference import MANIFEST, ReferenceManifest, reference_folder
from sonarc.contracts.result import Artifact
from sonarc.data.reader import read_clips, read_index
from sonarc.metrics.embedders import Embedder, load_embedder
from sonarc.metrics.embedders.interface import Embeddings
from sonarc.metrics.reference import Reference, load_reference, pin_reference

logger = logging.getLogger(__name__)

CLIPS: dict[Split, int] = {"test": 4_000, "train": 400}
"""At most so many clips of a split are pinned."""
SEED = 0
BATCH = 32


def run(context: StageContext) -> Outcome:
    """Pin the reference set of that name, or verify the pinned one."""
    evaluate = context.config.evaluate
    dataset = context.input("ingest", "dataset")
    uri = reference_folder(context.request.store, evaluate.reference)
    embedders = [load_embedder(name, threads=context.config.compute.threads) for name in evaluate.embedders]
    if store.exists(store.join(uri, MANIFEST)):
        reference = load_reference(uri)
        logger.info("the reference %s is pinned already", evaluate.reference)
    else:
        reference = _pin(context, uri, dataset.uri, embedders)
    reference.check(embedders)
    manifest = reference.manifest
    _check_audio(manifest, read_dataset(dataset.uri))
    floors = {f"fd_{name}_real": space.frechet(space.train_ME) for name, space in reference.spaces.items()}
    return Outcome(
        {"reference": Artifact(uri=uri, sha256=manifest.sha256())},
        metrics=floors,
        counts={"reference_clips": len(manifest.keys), "train_clips": len(manifest.train_keys)},
    )


def _pin(context: StageContext, uri: str, dataset_uri: str, embedders: Sequence[Embedder]) -> Reference:
    keys = {split: _choose(dataset_uri, split, most) for split, most in CLIPS.items()}
    if min(len(chosen) for chosen in keys.values()) < 2:
        raise DataError(
            f"The dataset has {len(keys['test'])} test and {len(keys['train'])} train clips: too few for a reference.",
            "Ingest more clips, of more groups.",
        )
    total = sum(len(chosen) for chosen in keys.values())
    embedded: dict[Split, dict[str, Embeddings]] = {}
    done = 0
    for split, chosen in keys.items():
        parts: dict[str, list[Embeddings]] = {embedder.name: [] for embedder in embedders}
        for batch_BAS in _batches(dataset_uri, split, chosen):
            for embedder in embedders:
                parts[embedder.name].append(embedder(batch_BAS))
            done += len(batch_BAS)
            context.progress(done, total, unit="clips")
        embedded[split] = {name: np.concatenate(part) for name, part in parts.items()}
    dataset = read_dataset(dataset_uri)
    manifest = ReferenceManifest(
        name=context.config.evaluate.reference,
        dataset_sha256=dataset.sha256(),
        split="test",
        sample_rate=dataset.sample_rate,
        samples=dataset.samples,
        keys=tuple(keys["test"]),
        train_keys=tuple(keys["train"]),
        spaces=(),
        embeddings_sha256="",
    )
    vectors = {e.name: (e, embedded["test"][e.name], embedded["train"][e.name]) for e in embedders}
    return pin_reference(uri, manifest, vectors)


def _choose(dataset_uri: str, split: Split, most: int) -> list[str]:
    """Keys of at most so many clips of a split, drawn with a fixed seed, in the order of the shards."""
    keys: list[str] = read_index(dataset_uri, split)["key"].to_pylist()
    if len(keys) <= most:
        return keys
    chosen = np.random.default_rng(SEED).choice(len(keys), most, replace=False)
    return [keys[n] for n in sorted(chosen)]


def _batches(dataset_uri: str, split: Split, keys: Sequence[str]) -> Iterator[NDArray[np.float32]]:
    """The clips of those keys, stacked `(B, A, S)`, in the order of the shards."""
    clips = read_clips(dataset_uri, split, keys)
    while batch := [clip.audio_AS for clip in islice(clips, BATCH)]:
        yield np.stack(batch)


def _check_audio(manifest: ReferenceManifest, dataset: DatasetManifest) -> None:
    pinned, given = (manifest.sample_rate, manifest.samples), (dataset.sample_rate, dataset.samples)
    if pinned != given:
        raise DataError(
            f"The reference {manifest.name!r} holds clips of {pinned[1]} samples at {pinned[0]} Hz, "
            f"the dataset's have {given[1]} at {given[0]} Hz.",
            "Pin a reference of another name with evaluate.reference.",
        )


if __name__ == "__main__":
    main("reference")
