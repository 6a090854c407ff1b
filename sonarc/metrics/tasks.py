"""What every sampled row is asked for: prompts of held-out clips, with their lengths and seeds.

All rows answer the same tasks, so that differences between them are paired.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sonarc.contracts.dataset import Split
from sonarc.contracts.errors import DataError
from sonarc.data.reader import read_clips, read_index
from sonarc.metrics.embedders.interface import Audio
from sonarc.runtime.sampled import Make

TOGETHER = 64


@dataclass(frozen=True)
class Tasks:
    """N prompts with lengths and seeds.

    Attributes:
        keys: the held-out clip behind each prompt; intervals resample these.
        seconds: length asked for.
        concepts: canonical JSON of the facts behind each prompt.
    """

    keys: list[str]
    prompts: list[str]
    seconds: list[float]
    seeds: list[int]
    concepts: list[str]

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, items: Sequence[int]) -> Tasks:
        return Tasks(
            [self.keys[n] for n in items],
            [self.prompts[n] for n in items],
            [self.seconds[n] for n in items],
            [self.seeds[n] for n in items],
            [self.concepts[n] for n in items],
        )

    def again(self, prompts: int, times: int, seed: int) -> Tasks:
        """The first `prompts` tasks, each `times` over, with seeds from `seed` on."""
        repeated = self[[p for p in range(prompts) for _ in range(times)]]
        return replace(repeated, seeds=[seed + n for n in range(len(repeated))])


def held_out_tasks(dataset_uri: str, split: Split, count: int, seed: int) -> Tasks:
    """`count` prompts of a split, every clip once before any comes again with another caption.

    Raises:
        DataError: fewer than two clips.
    """
    clips = read_index(dataset_uri, split).select(["key", "captions", "seconds", "concept"]).to_pylist()
    if len(clips) < 2:
        raise DataError(f"The {split} split holds {len(clips)} clips.", "Ingest more clips, of more groups.")
    rng = np.random.default_rng(seed)
    order = np.resize(rng.permutation(len(clips)), count)
    first_caption = rng.integers(1_000, size=len(clips))
    return Tasks(
        keys=[clips[n]["key"] for n in order],
        prompts=[_caption(clips[n], first_caption[n] + i // len(clips)) for i, n in enumerate(order)],
        seconds=[clips[n]["seconds"] for n in order],
        seeds=[seed + i for i in range(len(order))],
        concepts=[clips[n]["concept"] for n in order],
    )


def _caption(clip: dict[str, Any], n: int) -> str:
    captions: list[str] = clip["captions"]
    return captions[n % len(captions)]


def held_out_clips(dataset_uri: str, split: Split, keys: Sequence[str]) -> list[Audio]:
    """The real clips of those keys, in their order, cut to their true length."""
    clips = {clip.key: clip.audio_AS[:, : clip.row["frames"]] for clip in read_clips(dataset_uri, split, keys)}
    return [np.ascontiguousarray(clips[key]) for key in keys]


def answer(make: Make, tasks: Tasks) -> list[Audio]:
    """The clips of some tasks; like lengths go together, since a batch is as long as its longest clip."""
    order = np.argsort(tasks.seconds, kind="stable")
    clips: dict[int, Audio] = {}
    for start in range(0, len(order), TOGETHER):
        items = order[start : start + TOGETHER].tolist()
        part = tasks[items]
        clips.update(zip(items, make(part.prompts, part.seconds, part.seeds), strict=True))
    return [clips[n] for n in range(len(tasks))]
