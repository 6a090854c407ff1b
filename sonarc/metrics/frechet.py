"""Fréchet distance between Gaussians fitted to embeddings, in a fixed PCA basis.

`FD = |μ_a - μ_b|² + tr(Σ_a + Σ_b - 2 (Σ_a^½ Σ_b Σ_a^½)^½)` (Dowson and Landau, 1982). The trace of
the root is a sum of roots of eigenvalues of a symmetric matrix, which takes a hundredth of the time
of a general matrix root and never turns complex. All in float64.

The estimate is biased upwards, the more so the fewer the clips: compare only at equal N.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sonarc.contracts.errors import DataError
from sonarc.contracts.hashing import sha256_bytes

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Gaussian:
    """Mean and covariance of a set of embeddings, both float64."""

    mean_E: Floats
    cov_EE: Floats


def gaussian(x_NE: Floats, weights_N: Floats | None = None) -> Gaussian:
    """The Gaussian with the moments of `x_NE`.

    Args:
        x_NE: embeddings, at least two.
        weights_N: how often each row counts (a bootstrap's multiplicities); none: once each.

    Raises:
        DataError: fewer than two rows, or a value that is not finite.
    """
    x = np.asarray(x_NE, dtype=np.float64)
    weights = np.ones(len(x)) if weights_N is None else np.asarray(weights_N, dtype=np.float64)
    total = weights.sum()
    if x.ndim != 2 or total < 2:
        raise DataError(f"Embeddings of shape {x.shape} are too few for a Gaussian.", "Score more clips.")
    if not np.isfinite(x).all():
        raise DataError("An embedding is NaN or infinite.", "Look for NaN samples in the audio.")
    mean = weights @ x / total
    centred = x - mean
    return Gaussian(mean, (centred * weights[:, None]).T @ centred / (total - 1))


def root(cov_EE: Floats) -> Floats:
    """The symmetric square root of a covariance; eigenvalues below zero are rounding and count as zero."""
    values, vectors = np.linalg.eigh(cov_EE)
    return np.asarray((vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T)


def frechet_distance(a: Gaussian, b: Gaussian, root_b_EE: Floats | None = None) -> float:
    """Squared Fréchet (2-Wasserstein) distance of two Gaussians, at least 0.

    Args:
        root_b_EE: `root(b.cov_EE)`, where one `b` meets many `a`.
    """
    half = root(b.cov_EE) if root_b_EE is None else root_b_EE
    eigenvalues = np.linalg.eigvalsh(half @ a.cov_EE @ half)
    cross = np.sqrt(np.clip(eigenvalues, 0, None)).sum()
    shift = a.mean_E - b.mean_E
    distance = shift @ shift + np.trace(a.cov_EE) + np.trace(b.cov_EE) - 2 * cross
    return max(float(distance), 0.0)


@dataclass(frozen=True)
class PCA:
    """An affine map to the main axes of some embeddings. Fitted once on real clips, then pinned."""

    mean_E: Floats
    basis_EK: Floats

    def __call__(self, x_NE: Floats) -> Floats:
        """Coordinates `(N, K)`, float64, of embeddings `(N, E)`."""
        return np.asarray((np.asarray(x_NE, dtype=np.float64) - self.mean_E) @ self.basis_EK)

    @property
    def sha256(self) -> str:
        """Hash of mean and basis, as float32 bytes."""
        return sha256_bytes(self.mean_E.astype("<f4").tobytes() + self.basis_EK.astype("<f4").tobytes())


def fit_pca(x_NE: Floats, components: int) -> PCA:
    """The first `components` principal axes of `x_NE`; fewer where the data has a lower rank."""
    x = np.asarray(x_NE, dtype=np.float64)
    mean = x.mean(axis=0)
    values, vectors = np.linalg.eigh((x - mean).T @ (x - mean))
    rank = int((values > values[-1] * 1e-10).sum())
    order = np.argsort(values)[::-1][: min(components, rank)]
    basis = vectors[:, order]
    # An axis has no sign of its own: point the largest entry up, so that equal data gives equal bytes.
    basis = basis * np.sign(basis[np.abs(basis).argmax(axis=0), np.arange(basis.shape[1])])
    # Rounded as they are pinned, so that a fresh basis and one read back project alike.
    return PCA(mean.astype(np.float32).astype(np.float64), basis.astype(np.float32).astype(np.float64))
