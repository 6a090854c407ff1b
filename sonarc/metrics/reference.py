"""The pinned reference set, read and made: real embeddings and the PCA basis of each space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from sonarc.contracts import store
from sonarc.contracts.errors import DataError
from sonarc.contracts.hashing import sha256_bytes
from sonarc.contracts.reference import (
    EMBEDDINGS,
    ReferenceManifest,
    ReferenceSpace,
    read_reference,
    write_reference,
)
from sonarc.metrics.embedders import Embedder
from sonarc.metrics.embedders.interface import Embeddings
from sonarc.metrics.frechet import PCA, Floats, Gaussian, fit_pca, frechet_distance, gaussian

COMPONENTS = 64
"""Principal axes of a Fréchet distance: well below the number of clips that are compared."""


@dataclass(frozen=True)
class Space:
    """One embedding space of the reference.

    Attributes:
        reference_NE: raw vectors of the reference clips.
        train_ME: raw vectors of the pinned train clips.
    """

    name: str
    embedder_sha256: str
    pca: PCA
    reference_NE: Embeddings
    train_ME: Embeddings

    @cached_property
    def real_NK(self) -> Floats:
        """The reference clips in the PCA basis."""
        return self.pca(self.reference_NE)

    @cached_property
    def gaussian(self) -> Gaussian:
        """The Gaussian of the reference clips in the PCA basis."""
        return gaussian(self.real_NK)

    def frechet(self, x_NE: Embeddings) -> float:
        """Fréchet distance of some clips' raw vectors to the reference, in the PCA basis."""
        return frechet_distance(gaussian(self.pca(x_NE)), self.gaussian)


@dataclass(frozen=True)
class Reference:
    """A reference set in memory."""

    manifest: ReferenceManifest
    spaces: Mapping[str, Space]

    def check(self, embedders: Sequence[Embedder]) -> None:
        """Refuse embedders that are not the ones it was pinned with.

        Raises:
            DataError: a space is missing, or its embedder has another hash.
        """
        name = self.manifest.name
        for embedder in embedders:
            space = self.spaces.get(embedder.name)
            if space is None:
                raise DataError(
                    f"The reference {name!r} has no space {embedder.name!r}, only {', '.join(self.spaces)}.",
                    "Leave the embedder out, or pin a reference of another name with evaluate.reference.",
                )
            if space.embedder_sha256 != embedder.sha256:
                raise DataError(
                    f"The reference {name!r} was pinned with the embedder {embedder.name}:"
                    f"{space.embedder_sha256[:12]}, installed is {embedder.sha256[:12]}: their scores do not compare.",
                    "Install the pinned packages, or pin a reference of another name with evaluate.reference.",
                )


def load_reference(uri: str) -> Reference:
    """The reference set at `uri`, every hash verified.

    Raises:
        StoreError: there is none. DataError: it is damaged.
    """
    manifest = read_reference(uri)
    where = store.join(uri, EMBEDDINGS)
    data = store.read_bytes(where)
    if sha256_bytes(data) != manifest.embeddings_sha256:
        raise DataError(f"{where} is not the file that reference.json names.", "Restore the reference from a backup.")
    try:
        tensors = safetensors.numpy.load(data)
        spaces = {space.name: _space(space, tensors) for space in manifest.spaces}
    except (SafetensorError, KeyError) as error:
        raise DataError(f"{where} is damaged: {error}.", "Restore the reference from a backup.") from error
    return Reference(manifest, spaces)


def pin_reference(
    uri: str,
    manifest: ReferenceManifest,
    embedded: Mapping[str, tuple[Embedder, Embeddings, Embeddings]],
) -> Reference:
    """Write a reference set, its manifest last.

    Args:
        uri: its folder, which holds none yet.
        manifest: all but spaces and hashes.
        embedded: space → embedder, vectors of the reference clips, vectors of the train clips.
    """
    tensors: dict[str, Embeddings] = {}
    spaces = []
    for name, (embedder, reference_NE, train_ME) in embedded.items():
        pca = fit_pca(np.concatenate([reference_NE, train_ME]), COMPONENTS)
        tensors |= {
            f"{name}.reference": reference_NE,
            f"{name}.train": train_ME,
            f"{name}.pca_mean": np.asarray(pca.mean_E, dtype=np.float32),
            f"{name}.pca_basis": np.ascontiguousarray(pca.basis_EK, dtype=np.float32),
        }
        spaces.append(
            ReferenceSpace(
                name=name,
                embedder_sha256=embedder.sha256,
                width=embedder.width,
                components=pca.basis_EK.shape[1],
                pca_sha256=pca.sha256,
            )
        )
    digest = store.write_bytes(store.join(uri, EMBEDDINGS), safetensors.numpy.save(tensors))
    write_reference(uri, manifest.model_copy(update={"spaces": tuple(spaces), "embeddings_sha256": digest}))
    return load_reference(uri)


def _space(space: ReferenceSpace, tensors: Mapping[str, Embeddings]) -> Space:
    pca = PCA(
        tensors[f"{space.name}.pca_mean"].astype(np.float64), tensors[f"{space.name}.pca_basis"].astype(np.float64)
    )
    if pca.sha256 != space.pca_sha256:
        raise DataError(
            f"The PCA basis of {space.name!r} is not the pinned one.", "Restore the reference from a backup."
        )
    return Space(
        space.name,
        space.embedder_sha256,
        pca,
        tensors[f"{space.name}.reference"],
        tensors[f"{space.name}.train"],
    )
