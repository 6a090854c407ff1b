"""Kernel distance (KID): squared maximum mean discrepancy with a cubic kernel, unbiased at any N.

Source: Binkowski et al., *Demystifying MMD GANs*, ICLR 2018.
"""

from __future__ import annotations

import numpy as np

from sonarc.contracts.errors import DataError
from sonarc.metrics.frechet import Floats


def kernel_distance(x_NE: Floats, y_ME: Floats) -> float:
    """Unbiased estimate of MMD² under `(x·y / E + 1)³`; around 0, and a little below, for equal distributions.

    Raises:
        DataError: fewer than two rows on a side, or another number of columns.
    """
    x, y = np.asarray(x_NE, dtype=np.float64), np.asarray(y_ME, dtype=np.float64)
    if len(x) < 2 or len(y) < 2 or x.shape[1] != y.shape[1]:
        raise DataError(f"Embeddings of shapes {x.shape} and {y.shape} have no kernel distance.", "Score more clips.")
    return _mean_off_diagonal(_kernel(x, x)) + _mean_off_diagonal(_kernel(y, y)) - 2 * float(_kernel(x, y).mean())


def _kernel(x_NE: Floats, y_ME: Floats) -> Floats:
    return np.asarray((x_NE @ y_ME.T / x_NE.shape[1] + 1) ** 3)


def _mean_off_diagonal(k_NN: Floats) -> float:
    count = len(k_NN)
    return float((k_NN.sum() - np.trace(k_NN)) / (count * (count - 1)))
