"""`checkpoint.json`: what makes a checkpoint folder whole. Tensors are read in `sonarc.checkpoint`.

A checkpoint is `step-N.attempt-A/` with `model.safetensors`, `config.json`, `state/*.safetensors`
and, written last, `checkpoint.json` with the hash of every file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sonarc.contracts import store
from sonarc.contracts.errors import CheckpointError
from sonarc.contracts.hashing import sha256_json

FOLDER = re.compile(r"^step-(\d+)\.attempt-(\d+)$")


class CheckpointManifest(BaseModel):
    """`checkpoint.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    schema_: Literal["sonarc.checkpoint/1"] = Field(default="sonarc.checkpoint/1", alias="schema")
    kind: Literal["base", "generator"]
    step: int = Field(ge=0)
    attempt: int = Field(ge=0)
    position: int = Field(ge=0)
    """Clips drawn so far: where the data goes on."""
    config_sha256: str
    """Hash of the settings that shape the training; a resume with others is refused."""
    files: dict[str, str]
    """Relative path → sha256, of every other file of the folder."""
    lineage: dict[str, str] = {}
    """base_uri, base_sha256, encoder_sha256, dataset_sha256… as far as they apply."""

    def sha256(self) -> str:
        """The checkpoint's hash: it covers every file."""
        return sha256_json(self.model_dump(mode="json", by_alias=True, exclude={"attempt"}))


def folder_name(step: int, attempt: int) -> str:
    """`step-N.attempt-A`."""
    return f"step-{step}.attempt-{attempt}"


def read_manifest(uri: str) -> CheckpointManifest:
    """The manifest of a checkpoint folder.

    Raises:
        StoreError: there is none, so the folder is no whole checkpoint. CheckpointError: it is malformed.
    """
    where = store.join(uri, "checkpoint.json")
    try:
        return CheckpointManifest.model_validate_json(store.read_bytes(where))
    except ValidationError as error:
        raise CheckpointError(f"{where} does not follow its schema: {error}.", "Use an older checkpoint.") from error


def whole(uri: str) -> Iterator[tuple[str, CheckpointManifest]]:
    """The whole checkpoints below `uri`, newest first: highest step, then highest attempt. Half-written and
    malformed ones are passed over."""
    folders = {name.split("/", 1)[0] for name in store.list_files(uri) if name.endswith("/checkpoint.json")}
    ranked = sorted(
        ((int(match[1]), int(match[2]), name) for name in folders if (match := FOLDER.match(name))), reverse=True
    )
    for _, _, name in ranked:
        try:
            yield store.join(uri, name), read_manifest(store.join(uri, name))
        except CheckpointError:
            continue


def newest(uri: str) -> tuple[str, CheckpointManifest] | None:
    """The newest whole checkpoint below `uri`, if there is one."""
    return next(whole(uri), None)
