"""AudioCaps' test protocol: a clip for each of its 4,875 captions, against the 975 real clips.

Fréchet distance of a space's raw vectors, without a projection; divergence of class posteriors from those of the real
clip behind each caption; agreement of clip and caption. The preprocessing is pinned: ten seconds of 44.1 kHz stereo
from the beginning, mono to both sides, level as it is. Published figures are by OpenL3, PaSST and LAION's CLAP: with
other embedders a figure is good for comparing one's own models only; with fewer captions or shorter clips `comparable`
says no.

Source: the protocol of Evans et al., *Stable Audio Open*, arXiv 2407.14358, §4, and its published evaluation code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import safetensors.numpy
import soxr
from pydantic import BaseModel, ConfigDict

from sonarc.audio import Refused, decode, to_stereo
from sonarc.contracts import store
from sonarc.contracts.config import SourceConfig
from sonarc.contracts.errors import SourceError
from sonarc.contracts.hashing import sha256_json
from sonarc.data.sources import read_source
from sonarc.metrics.bootstrap import Interval, interval, resampled_frechet, resamples, weighted_mean
from sonarc.metrics.embedders.interface import Audio, Embeddings
from sonarc.metrics.frechet import frechet_distance, gaussian
from sonarc.metrics.listening import CLASSES, Ears
from sonarc.metrics.posteriors import posterior_divergence
from sonarc.runtime.sampled import Make

NAME = "audiocaps/1"
CAPTIONS, SECONDS, RATE = 4_875, 10.0, 44_100
MOST_SAMPLES = 100_000_000
TOGETHER = 32
Tell = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Task:
    """A caption, and the place of the real clip behind it."""

    caption: str
    uri: str


class Figure(BaseModel):
    """A value with its 95 % interval over clips."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    """`fd_<space>`, `kl_<tagger>` or `adherence`."""
    value: float
    low: float
    high: float
    embedder_sha256: str


class AudioCapsScores(BaseModel):
    """What came out, and all it depends on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    protocol: str = NAME
    model: str
    """Hash of what was scored."""
    comparable: bool
    """Whether all captions were answered at full length."""
    n: int
    n_real: int
    seconds: float
    steps: int
    first_seed: int
    """The caption at place i was answered with this seed plus i."""
    captions_sha256: str
    reference_sha256: str
    figures: tuple[Figure, ...]


def tasks_of(uri: str) -> list[Task]:
    """A task for each caption of the test split whose clip is there.

    Raises:
        SourceError: the folder has no test split, or none of its clips.
    """
    listing = read_source(SourceConfig(name="audiocaps", uri=uri, layout="audiocaps", subset=("test",)))
    tasks = [Task(caption, file.uri) for file in listing.files for caption in file.captions]
    if len(listing.files) < 2:
        raise SourceError(
            f"{uri} has the audio of {len(listing.files)} clips of AudioCaps' test split.",
            "Fetch their audio; docs/extending.md says how files are named.",
        )
    return tasks


def score(
    tasks: Sequence[Task],
    make: Make,
    model_sha256: str,
    seconds: float,
    steps: int,
    seed: int,
    ears: Ears,
    folder: str,
    tell: Tell,
) -> AudioCapsScores:
    """Answer every task and score the answers.

    Args:
        make: gives clips of prompts, lengths and seeds.
        model_sha256: what `make` is.
        seconds: length of the answers; the real clips are cut to it.
        seed: of the first task.
        ears: embedders, and the audio-text model; their `samples` are those of `seconds`.
        folder: URI for what is kept on the way, so that a stopped run goes on.
        tell: `tell(what, done, total)`.
    """
    reals = list(dict.fromkeys(task.uri for task in tasks))
    heard = {e.name: e.sha256 for e in (*ears.embedders, ears.clap)}
    asked = {"protocol": NAME, "captions": [task.caption for task in tasks], "seconds": seconds, "heard": heard}
    kept = _Kept(folder, ears, tell)
    real = kept.vectors("real clips", {**asked, "clips": reals}, reals, lambda some: [_real(u, seconds) for u in some])

    def answers(some: Sequence[int]) -> list[Audio]:
        return list(make([tasks[n].caption for n in some], [seconds] * len(some), [seed + n for n in some]))

    identity = {**asked, "model": model_sha256, "steps": steps, "seed": seed}
    made = kept.vectors("answers", identity, range(len(tasks)), answers)
    behind = [reals.index(task.uri) for task in tasks]
    return AudioCapsScores(
        model=model_sha256,
        comparable=len(tasks) == CAPTIONS and seconds == SECONDS,
        n=len(tasks),
        n_real=len(reals),
        seconds=seconds,
        steps=steps,
        first_seed=seed,
        captions_sha256=sha256_json([task.caption for task in tasks]),
        reference_sha256=sha256_json(
            {name: vectors.astype(np.float64).sum(0).tolist() for name, vectors in real.items()}
        ),
        figures=tuple(_figures(tasks, real, made, behind, ears, heard)),
    )


def _figures(
    tasks: Sequence[Task],
    real: dict[str, Embeddings],
    made: dict[str, Embeddings],
    behind: Sequence[int],
    ears: Ears,
    heard: dict[str, str],
) -> Iterable[Figure]:
    draws = resamples([task.uri for task in tasks], 100, 0)

    def figure(name: str, found: Interval, embedder: str) -> Figure:
        return Figure(name=name, value=found.value, low=found.low, high=found.high, embedder_sha256=heard[embedder])

    for embedder in ears.embedders:
        space = embedder.name
        reference = gaussian(real[space])
        distance = frechet_distance(gaussian(made[space]), reference)
        yield figure(f"fd_{space}", interval(distance, resampled_frechet(made[space], reference, draws)), space)
        if (posteriors := f"{CLASSES}{space}") in made:
            divergence_N = posterior_divergence(real[posteriors][behind], made[posteriors])
            spread = interval(float(divergence_N.mean()), weighted_mean(divergence_N, draws))
            yield figure(f"kl_{space}", spread, space)
    text_NE = ears.clap.text([task.caption for task in tasks])
    adherence_N = (made[ears.clap.name] * text_NE).sum(axis=1)
    spread = interval(float(adherence_N.mean()), weighted_mean(adherence_N, draws))
    yield figure("adherence", spread, ears.clap.name)


def _real(uri: str, seconds: float) -> Audio:
    """The beginning of a real clip, `(2, S)`."""
    try:
        waveform = decode(store.read_bytes(uri), max_samples=MOST_SAMPLES)
    except Refused as refused:
        raise SourceError(f"{uri} cannot be used: {refused.detail}.", "Fetch it again, or remove it.") from refused
    beginning = to_stereo(waveform.audio_AS[:, : round((seconds + 1) * waveform.sample_rate)])
    resampled = soxr.resample(beginning.T, waveform.sample_rate, RATE, quality="HQ").T
    return np.ascontiguousarray(resampled[:, : round(seconds * RATE)], dtype=np.float32)


@dataclass(frozen=True)
class _Kept:
    """Vectors of many clips, some at a time, each kept once it is there."""

    folder: str
    ears: Ears
    tell: Tell

    def vectors(
        self,
        what: str,
        identity: dict[str, Any],
        items: Sequence[Any],
        clips: Callable[[Sequence[Any]], Sequence[Audio]],
    ) -> dict[str, Embeddings]:
        place = store.join(self.folder, sha256_json({**identity, "together": TOGETHER})[:16])
        parts = []
        for start in range(0, len(items), TOGETHER):
            uri = store.join(place, f"{start:06d}.safetensors")
            if not store.exists(uri):
                found = self.ears.vectors(clips(items[start : start + TOGETHER]))
                store.write_bytes(uri, safetensors.numpy.save({n: np.ascontiguousarray(v) for n, v in found.items()}))
            parts.append(safetensors.numpy.load(store.read_bytes(uri)))
            self.tell(what, min(start + TOGETHER, len(items)), len(items))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
