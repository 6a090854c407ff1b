"""A model package: what the registry holds and the server loads. safetensors and JSON only.

package.json              this manifest, written last
generator.safetensors     the generator's weights (EMA)
codec/…                   the codec's folder (model.safetensors, config.json, card.md)
config.json               the config tree it was trained with
scores.json               its evaluation card
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sonarc.contracts import store
from sonarc.contracts.errors import CheckpointError
from sonarc.contracts.hashing import sha256_json

SUFFIXES = (".safetensors", ".json", ".md")
"""The only kinds of file a package may hold."""


class PackageLineage(BaseModel):
    """Where a model came from: enough to warm-start the next one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_uri: str
    base_sha256: str
    generator_sha256: str
    """Hash of the generator's checkpoint manifest: tells whether a candidate is the champion. Empty for a base."""
    codec_sha256: str
    dataset_sha256: str
    dataset_version: int
    text_encoder: str
    """Kind and hash of the text encoder's weights, as `minilm:<sha256>`."""
    encoder_sha256: str = ""
    """Hash of the codec's encoder, by which a warm start knows its latents; empty in older packages."""
    dataset_uri: str = ""
    """Where the dataset lies, by which a later one is known to hold something new; empty in older packages."""


class PackageManifest(BaseModel):
    """`package.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    schema_: Literal["sonarc.package/1"] = Field(default="sonarc.package/1", alias="schema")
    kind: Literal["generator", "base"]
    files: dict[str, str]
    """Relative path → sha256 of every other file."""
    lineage: PackageLineage
    config_sha256: str

    def sha256(self) -> str:
        """The package hash that serving compares."""
        told = ("encoder_sha256", "dataset_uri")
        unknown = {name for name in told if not getattr(self.lineage, name)}  # older packages do not say
        return sha256_json(self.model_dump(mode="json", by_alias=True, exclude={"lineage": unknown}))


def read_package(uri: str) -> PackageManifest:
    """The manifest of a package folder; files of other kinds, or that it does not name, are refused.

    Raises:
        CheckpointError: malformed manifest, a missing or an extra file.
    """
    where = store.join(uri, "package.json")
    document: Any = store.read_json(where)
    try:
        manifest = PackageManifest.model_validate(document)
    except ValidationError as error:
        raise CheckpointError(f"{where} does not follow its schema: {error}.", "Register the model again.") from error
    found = set(store.list_files(uri)) - {"package.json"}
    if extra := sorted(found - set(manifest.files)):
        raise CheckpointError(f"The package {uri} holds files its manifest does not name: {extra}.", "Do not load it.")
    if missing := sorted(set(manifest.files) - found):
        raise CheckpointError(f"The package {uri} lacks {missing}.", "Register the model again.")
    if wrong := sorted(name for name in manifest.files if not name.endswith(SUFFIXES)):
        raise CheckpointError(
            f"The package {uri} holds {wrong}; only safetensors, JSON and Markdown are allowed.", "Do not load it."
        )
    return manifest
