"""A pinned reference set: the real clips that scores are measured against. Made once, never remade.

    <store>/pinned/<name>/reference.json             this manifest, written last
    <store>/pinned/<name>/embeddings.safetensors     real embeddings and the PCA basis of each space

Tensors of a space: `<space>.reference`, `<space>.train` (clips × width), `<space>.pca_mean`,
`<space>.pca_basis`; all float32.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sonarc.contracts import store
from sonarc.contracts.dataset import Split
from sonarc.contracts.errors import DataError
from sonarc.contracts.hashing import sha256_json

MANIFEST, EMBEDDINGS = "reference.json", "embeddings.safetensors"


class ReferenceSpace(BaseModel):
    """One embedding space of the reference."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    """Name of the embedder."""
    embedder_sha256: str
    """Hash of the embedder: vectors of another one are not comparable with these."""
    width: int = Field(ge=1)
    """Dimensions of a vector."""
    components: int = Field(ge=1)
    """Principal axes the Fréchet distance is taken in."""
    pca_sha256: str
    """Hash of the basis."""


class ReferenceManifest(BaseModel):
    """`reference.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    schema_: Literal["sonarc.reference/1"] = Field(default="sonarc.reference/1", alias="schema")
    name: str
    dataset_sha256: str
    """The dataset whose clips were pinned."""
    split: Split
    """The split the reference clips come from."""
    sample_rate: int
    samples: int
    """Length that clips are zero-padded to before embedding, samples."""
    keys: tuple[str, ...]
    """The reference clips."""
    train_keys: tuple[str, ...]
    """Clips of the train split: with the reference they shape the PCA basis, and they set the floor of a score."""
    spaces: tuple[ReferenceSpace, ...]
    embeddings_sha256: str
    """Hash of `embeddings.safetensors`."""

    def sha256(self) -> str:
        """The reference's hash, carried by every score."""
        return sha256_json(self.model_dump(mode="json", by_alias=True))


def reference_folder(store_uri: str, name: str) -> str:
    """`<store>/pinned/<name>`."""
    return store.join(store_uri, "pinned", name)


def read_reference(uri: str) -> ReferenceManifest:
    """The manifest of the reference folder at `uri`.

    Raises:
        StoreError: there is none. DataError: it does not follow its schema.
    """
    where = store.join(uri, MANIFEST)
    document: Any = store.read_json(where)
    try:
        return ReferenceManifest.model_validate(document)
    except ValidationError as error:
        raise DataError(
            f"{where} does not follow its schema: {error}.", "Choose another name with evaluate.reference."
        ) from error


def write_reference(uri: str, manifest: ReferenceManifest) -> None:
    """Write `reference.json`: the last act of pinning."""
    store.write_json(store.join(uri, MANIFEST), manifest.model_dump(mode="json", by_alias=True))
