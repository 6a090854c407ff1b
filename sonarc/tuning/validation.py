"""How good a generator is, heard on the validation split: what tuning goes by.

Shapes: N clips, A audio channels, S samples, E embedding dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from sonarc.codec.interface import Codec
from sonarc.codec.package import load_codec
from sonarc.contracts.config import SonarcConfig
from sonarc.contracts.errors import DataError
from sonarc.data import read_clips, read_index
from sonarc.dit import DiT
from sonarc.metrics.bootstrap import resampled_frechet, resamples
from sonarc.metrics.diversity import conditional_diversity
from sonarc.metrics.embedders import AudioText, Embedder, embed, load_audio_text, load_embedder
from sonarc.metrics.frechet import PCA, Gaussian, frechet_distance, gaussian
from sonarc.metrics.reference import load_reference
from sonarc.runtime.generate import Sampling, generate_audio, silence_latent
from sonarc.text import TextEncoder

BATCH = 32
"""Clips decoded or embedded at once."""
REAL = 512
"""At most so many validation clips stand for real audio."""


@dataclass(frozen=True)
class Heard:
    """What a model's answers to the validation prompts sound like.

    Attributes:
        frechet: distance to the real clips; NaN if a sample is not finite.
        adherence: mean cosine with the prompts; NaN likewise.
        drawn: the distance of each bootstrap resample of the prompts, the same ones for every model.
    """

    frechet: float
    adherence: float
    drawn: tuple[float, ...] = ()
    diversity: float = math.nan
    """Mean cosine distance between generations of one prompt, where it was asked for."""


@dataclass(frozen=True)
class Validation:
    """Prompts of the validation split, and ears that know what its real clips sound like.

    Attributes:
        prompts, seconds: what is asked for; item i is generated with seed `seed + i`.
        real: Gaussian of the real clips in the PCA basis of the pinned reference.
    """

    prompts: list[str]
    seconds: list[float]
    seed: int
    real: Gaussian
    pca: PCA
    embedder: Embedder
    clap: AudioText
    codec: Codec
    channels: int
    samples: int
    bootstrap: int = 100

    @classmethod
    def load(cls, dataset_uri: str, reference_uri: str, config: SonarcConfig) -> Validation:
        """Read the validation split and embed its clips in the reference's first space.

        Raises:
            DataError: fewer than two validation clips, or a reference pinned with another embedder.
        """
        threads, tune = config.compute.threads, config.tune
        reference = load_reference(reference_uri)
        embedder = load_embedder(config.evaluate.embedders[0], threads=threads)
        reference.check([embedder])
        pca = reference.spaces[embedder.name].pca
        rows = read_index(dataset_uri, "valid").select(["key", "captions", "seconds"]).to_pylist()
        if len(rows) < 2:
            raise DataError(f"The validation split holds {len(rows)} clips.", "Ingest more clips, of more groups.")
        clips, vectors = islice(read_clips(dataset_uri, "valid"), REAL), []
        while batch := [clip.audio_AS for clip in islice(clips, BATCH)]:
            vectors.append(embed(embedder, np.stack(batch)))
        order = np.resize(np.random.default_rng(tune.seed).permutation(len(rows)), tune.clips)
        return cls(
            prompts=[rows[n]["captions"][i // len(rows) % len(rows[n]["captions"])] for i, n in enumerate(order)],
            seconds=[rows[n]["seconds"] for n in order],
            seed=tune.seed,
            real=gaussian(pca(np.concatenate(vectors))),
            pca=pca,
            embedder=embedder,
            clap=load_audio_text(config.evaluate.clap, threads=threads),
            codec=load_codec(config.codec.uri),
            channels=config.audio.channels,
            samples=config.audio.samples,
            bootstrap=tune.bootstrap,
        )

    def score(self, model: DiT, encoder: TextEncoder, *, steps: int, variants: tuple[int, int] | None = None) -> Heard:
        """What the model's ping-pong samples sound like.

        Args:
            steps: of the sampler.
            variants: of how many prompts how many generations each are compared for diversity; none: it is not asked.
        """
        heard = self.score_audio(self._samples(model, encoder, range(len(self.prompts)), steps))
        if variants is None or not math.isfinite(heard.frechet):
            return heard
        return replace(heard, diversity=self._diversity(model, encoder, steps, *variants))

    def distance(self, model: DiT, encoder: TextEncoder, *, steps: int, clips: int) -> float:
        """The distance of samples of the first prompts: cheap, biased upwards, and alike for every model; NaN if a
        sample is not finite."""
        audio_NAS = self._samples(model, encoder, range(min(clips, len(self.prompts))), steps)
        if not np.isfinite(audio_NAS).all():
            return math.nan
        return frechet_distance(gaussian(self.pca(embed(self.embedder, audio_NAS))), self.real)

    def _diversity(self, model: DiT, encoder: TextEncoder, steps: int, prompts: int, samples: int) -> float:
        which = list(dict.fromkeys(self.prompts))[:prompts]
        first = [self.prompts.index(prompt) for prompt in which]
        rows = [row for row in first for _ in range(samples)]
        # Seeds beyond those of the clips that are scored.
        audio_NAS = self._samples(model, encoder, rows, steps, seed=self.seed + len(self.prompts))
        if not np.isfinite(audio_NAS).all():
            return math.nan
        unit_NE = embed(self.clap, audio_NAS)
        return float(conditional_diversity(unit_NE.reshape(len(first), samples, -1)).mean())

    def _samples(
        self, model: DiT, encoder: TextEncoder, rows: Sequence[int], steps: int, seed: int | None = None
    ) -> NDArray[np.float32]:
        """A zero-padded clip for each of some prompts `(N, A, S)`, from seeds that count on from `seed`."""
        silence, start = cache(partial(silence_latent, self.codec)), self.seed if seed is None else seed
        audio_NAS = np.zeros((len(rows), self.channels, self.samples), np.float32)
        for begin in range(0, len(rows), BATCH):
            part = rows[begin : begin + BATCH]
            clips = generate_audio(
                model,
                self.codec,
                encoder,
                [self.prompts[row] for row in part],
                [self.seconds[row] for row in part],
                range(start + begin, start + begin + len(part)),
                Sampling("generator", steps),
                clip_samples=self.samples,
                silence=silence,
            )
            for row_AS, clip_AS in zip(audio_NAS[begin:], clips, strict=False):
                row_AS[:, : clip_AS.shape[1]] = clip_AS
        return audio_NAS

    def score_audio(self, audio_NAS: NDArray[np.float32]) -> Heard:
        """What zero-padded clips, one a prompt, sound like."""
        if not np.isfinite(audio_NAS).all():
            return Heard(math.nan, math.nan)
        heard_NK = self.pca(embed(self.embedder, audio_NAS))
        distance = frechet_distance(gaussian(heard_NK), self.real)
        agreement_N = (embed(self.clap, audio_NAS) * self.clap.text(self.prompts)).sum(axis=1)
        drawn_R = resampled_frechet(heard_NK, self.real, resamples(self.prompts, self.bootstrap, self.seed))
        return Heard(distance, float(agreement_N.mean()), tuple(drawn_R.tolist()))
