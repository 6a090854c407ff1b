"""Sets of clips as they were heard: vectors in every space, and figures of sanity. Kept on disk.

Shapes: N clips, E dimensions of a space, P prompts, G answers to each.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import safetensors.numpy

from sonarc.contracts import store
from sonarc.contracts.hashing import sha256_json
from sonarc.data.reader import read_clips
from sonarc.metrics.embedders.interface import Audio, Embeddings
from sonarc.metrics.hearing import RECIPE, hear
from sonarc.metrics.listening import Ears
from sonarc.metrics.sanity import Sanity, sanity
from sonarc.metrics.tasks import Tasks, answer
from sonarc.runtime.sampled import Make

READ_TOGETHER = 256
HEARING = "hearing"
"""What signal processing hears of each clip, among its vectors."""
HEARING_THREADS = 2
FACTS = "facts.json"


@dataclass(frozen=True)
class Heard:
    """A set of N clips.

    Attributes:
        vectors: space → `(N, E)`; class posteriors of taggers, and `HEARING`, beside them.
        sanity: figures of the clips; None where they were not asked for.
        again_PGE: CLAP vectors of more answers to the first P prompts; empty where there are none.
    """

    vectors: Mapping[str, Embeddings]
    sanity: Sanity | None = None
    again_PGE: Embeddings = field(default_factory=lambda: np.zeros((0, 0, 0), np.float32))

    def __len__(self) -> int:
        return len(next(iter(self.vectors.values())))


@dataclass(frozen=True)
class Listener:
    """Hears sets of clips once and keeps what it heard.

    Attributes:
        folder: URI; a folder below it for each set, named by what it is.
        ears: embedders and CLAP.
        tell: hears how far a set is: clips done, clips in all.
    """

    folder: str
    ears: Ears
    tell: Callable[[int, int], None]

    def made(
        self, identity: Mapping[str, Any], load: Callable[[], Make], tasks: Tasks, *, prompts: int, answers: int
    ) -> Heard:
        """The clips that a model makes for `tasks`, and `answers` to each of the first `prompts` in all.

        Args:
            identity: what names the model: checkpoint, sampling, codec.
            load: gives what makes clips; called only if it must.
        """
        asked = {"keys": tasks.keys, "prompts": tasks.prompts, "seeds": tasks.seeds, "again": [prompts, answers]}

        def hear() -> Heard:
            make = load()
            clips = answer(make, tasks)
            again = tasks.again(prompts, answers - 1, tasks.seeds[-1] + 1)
            again_PGE = self.ears.clap_vectors(answer(make, again)).reshape(prompts, answers - 1, -1)
            return Heard(self._vectors(clips), sanity(clips, self.ears.sample_rate), again_PGE)

        return self._kept({**identity, **asked}, hear)

    def real(self, dataset_uri: str, dataset_sha256: str, keys: Sequence[str]) -> Heard:
        """Real clips of a dataset, in the order of `keys`."""

        def hear() -> Heard:
            order, parts = list[str](), list[dict[str, Embeddings]]()
            for batch in _batches(dataset_uri, keys):
                order += [key for key, _ in batch]
                parts.append(self._some([clip for _, clip in batch]))
                self.tell(len(order), len(keys))
            at = {key: n for n, key in enumerate(order)}
            rows = [at[key] for key in keys]
            return Heard({name: np.concatenate([part[name] for part in parts])[rows] for name in parts[0]})

        return self._kept({"dataset": dataset_sha256, "keys": list(keys)}, hear)

    def clips(self, identity: Mapping[str, Any], clips: Callable[[], Sequence[Audio]]) -> Heard:
        """Any clips, made only if they have not been heard."""

        def hear() -> Heard:
            made = clips()
            return Heard(self._vectors(made), sanity(list(made), self.ears.sample_rate))

        return self._kept(identity, hear)

    def _vectors(self, clips: Sequence[Audio]) -> dict[str, Embeddings]:
        parts = []
        for start in range(0, len(clips), READ_TOGETHER):
            parts.append(self._some(clips[start : start + READ_TOGETHER]))
            self.tell(min(start + READ_TOGETHER, len(clips)), len(clips))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _some(self, clips: Sequence[Audio]) -> dict[str, Embeddings]:
        with ThreadPoolExecutor(HEARING_THREADS) as pool:
            heard = list(pool.map(lambda clip: hear(clip, self.ears.sample_rate), clips))
        return {**self.ears.vectors(clips), HEARING: np.stack(heard)}

    def _kept(self, identity: Mapping[str, Any], hear: Callable[[], Heard]) -> Heard:
        embedders = {e.name: e.sha256 for e in (*self.ears.embedders, self.ears.clap)}
        place = store.join(self.folder, sha256_json({**identity, "embedders": embedders, HEARING: RECIPE})[:16])
        if not store.exists(store.join(place, FACTS)):
            _write(place, hear())
        return _read(place)


def _batches(dataset_uri: str, keys: Sequence[str]) -> Iterator[list[tuple[str, Audio]]]:
    """Clips at their true length, in the order of the shards."""
    clips = read_clips(dataset_uri, keys=keys)
    while batch := [(clip.key, clip.audio_AS[:, : clip.row["frames"]]) for clip in islice(clips, READ_TOGETHER)]:
        yield batch


def _write(place: str, heard: Heard) -> None:
    tensors = {name: np.ascontiguousarray(vectors) for name, vectors in heard.vectors.items()}
    tensors["again"] = np.ascontiguousarray(heard.again_PGE)
    store.write_bytes(store.join(place, "vectors.safetensors"), safetensors.numpy.save(tensors))
    facts = {"sanity": None if heard.sanity is None else asdict(heard.sanity)}
    store.write_json(store.join(place, FACTS), facts)


def _read(place: str) -> Heard:
    tensors = safetensors.numpy.load(store.read_bytes(store.join(place, "vectors.safetensors")))
    facts = json.loads(store.read_bytes(store.join(place, FACTS)))
    figures = None if facts["sanity"] is None else Sanity(**facts["sanity"])
    again = tensors.pop("again")
    return Heard(tensors, figures, again)
