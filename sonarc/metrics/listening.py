"""Everything that listens to clips, together: embedders, taggers and the audio-text model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sonarc.metrics.embedders.interface import Audio, AudioText, Embedder, Embeddings, Tagger, embed
from sonarc.metrics.posteriors import posterior_divergence

BATCH = 64
CLASSES = "classes_"
"""Prefix of a tagger's posteriors among the vectors of a row."""


@dataclass(frozen=True)
class Ears:
    """Everything that listens to clips."""

    embedders: Sequence[Embedder]
    clap: AudioText
    samples: int
    """Length that clips are zero-padded to."""
    sample_rate: int

    def vectors(self, clips: Sequence[Audio]) -> dict[str, Embeddings]:
        """Raw vectors of some clips in every space and in CLAP's; class posteriors as `classes_<space>`."""
        found: dict[str, list[Embeddings]] = {}
        for start in range(0, len(clips), BATCH):
            batch_BAS = self._padded(clips[start : start + BATCH])
            # One model may be an embedding space and the audio-text model, too.
            for embedder in {e.name: e for e in (*self.embedders, self.clap)}.values():
                if isinstance(embedder, Tagger):
                    tags = embedder.tag(batch_BAS)
                    found.setdefault(embedder.name, []).append(tags.embeddings_BE)
                    found.setdefault(f"{CLASSES}{embedder.name}", []).append(tags.posteriors_BK)
                else:
                    found.setdefault(embedder.name, []).append(embed(embedder, batch_BAS))
        return {name: np.concatenate(parts) for name, parts in found.items()}

    def divergences(
        self, keys: Sequence[str], heard: Mapping[str, Embeddings], real: Mapping[str, Mapping[str, Embeddings]]
    ) -> dict[str, NDArray[np.floating]]:
        """Divergence of each clip's classes from those of the real clip behind its prompt, by tagger."""
        return {
            name.removeprefix(CLASSES): posterior_divergence(np.stack([by_key[key] for key in keys]), heard[name])
            for name, by_key in real.items()
        }

    def clap_vectors(self, clips: Sequence[Audio]) -> Embeddings:
        """CLAP vectors of some clips."""
        return embed(self.clap, self._padded(clips))

    def _padded(self, clips: Sequence[Audio]) -> Audio:
        padded = np.zeros((len(clips), len(clips[0]), self.samples), np.float32)
        for row_AS, clip_AS in zip(padded, clips, strict=True):
            # A clip that is not finite is counted as such, and heard as silence.
            row_AS[:, : clip_AS.shape[1]] = clip_AS if np.isfinite(clip_AS).all() else 0.0
        return padded
