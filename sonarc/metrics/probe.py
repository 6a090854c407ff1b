"""Class accuracy: does a clip sound like the kind of thing its caption names?

A linear probe on embeddings of real train clips names the class of any clip; its accuracy on real held-out clips is the
ceiling of every generated row's.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from sonarc.contracts.errors import DataError
from sonarc.metrics.embedders.interface import Embeddings

FEWEST = 5
"""Train clips that a class needs to be learnt."""
REGULARISATION = 0.01


def class_of(concept: str) -> str:
    """The class that a clip's facts name: its instrument, or else its category or kind."""
    facts = json.loads(concept)
    return str(facts.get("instrument") or facts.get("category") or facts.get("kind") or "")


@dataclass(frozen=True)
class ClassProbe:
    """A linear classifier of clips over the vectors of several spaces side by side.

    Attributes:
        spaces: names of the spaces, in order.
        classes: what it can name.
    """

    spaces: tuple[str, ...]
    classes: tuple[str, ...]
    model: Pipeline

    @classmethod
    def fit(cls, vectors: Mapping[str, Embeddings], classes: Sequence[str], spaces: Sequence[str]) -> ClassProbe:
        """Learn the classes that have at least `FEWEST` clips.

        Args:
            vectors: space → `(N, E)`.
            classes: class of each of the N clips.

        Raises:
            DataError: fewer than two classes have so many.
        """
        counts = Counter(classes)
        known = np.array([counts[name] >= FEWEST for name in classes])
        if len({name for name in counts if counts[name] >= FEWEST}) < 2:
            raise DataError(
                f"Of {len(counts)} classes fewer than two have {FEWEST} clips.", "Give the probe more train clips."
            )
        model = make_pipeline(StandardScaler(), LogisticRegression(C=REGULARISATION, max_iter=300))
        model.fit(_beside(vectors, spaces)[known], np.asarray(classes)[known])
        return cls(tuple(spaces), tuple(str(name) for name in model.classes_), model)

    def right(self, vectors: Mapping[str, Embeddings], classes: Sequence[str]) -> NDArray[np.float64]:
        """1 where a clip is named as its class, 0 where not, NaN where the probe never learnt the class, `(N,)`."""
        named = self.model.predict(_beside(vectors, self.spaces))
        learnt = set(self.classes)
        return np.array(
            [float(a == b) if b in learnt else np.nan for a, b in zip(named, classes, strict=True)], dtype=np.float64
        )


def _beside(vectors: Mapping[str, Embeddings], spaces: Sequence[str]) -> Embeddings:
    return np.concatenate([vectors[name] for name in spaces], axis=1)
