"""Divergence of class posteriors: does a generated clip sound like the kind of thing its real counterpart is?

Source: Kreuk et al., *AudioGen*, arXiv 2209.15352, and the field's protocol since: KL between a tagger's posteriors of
the real clip behind a prompt and of the clip generated from it. Values of other taggers are not comparable.
"""

from __future__ import annotations

import numpy as np

from sonarc.contracts.errors import DataError
from sonarc.metrics.frechet import Floats

FLOOR = 1e-6
"""Least posterior of a class: a tagger's certainty that a class is absent is not infinite."""


def posterior_divergence(real_NK: Floats, generated_NK: Floats) -> Floats:
    """`KL(real ‖ generated)` of each pair `(N,)`, nats, not negative; 0 where both posteriors are the same.

    Args:
        real_NK: posteriors of K classes in [0, 1] of the N real clips; classes that do not exclude each other are
            brought to a sum of 1.
        generated_NK: those of the clips generated from their prompts.

    Raises:
        DataError: other shapes, or what is no posterior.
    """
    real, generated = np.asarray(real_NK, dtype=np.float64), np.asarray(generated_NK, dtype=np.float64)
    if real.ndim != 2 or real.shape != generated.shape:
        raise DataError(f"Posteriors of shapes {real.shape} and {generated.shape} are no pairs.", "Pair the clips.")
    for posteriors in (real, generated):
        if not (np.isfinite(posteriors).all() and (posteriors >= 0).all() and (posteriors <= 1).all()):
            raise DataError("A posterior lies outside [0, 1].", "Give the tagger's posteriors, not its logits.")
    p, q = (np.maximum(posteriors, FLOOR) for posteriors in (real, generated))
    p, q = p / p.sum(axis=1, keepdims=True), q / q.sum(axis=1, keepdims=True)
    return np.asarray((p * np.log(p / q)).sum(axis=1))
