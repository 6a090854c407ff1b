"""Checkpoint folders `step-N.attempt-A/`: written file by file, the manifest last; every byte verified on reading.

model.safetensors       the weights to use (an average of training, where there is one)
config.json             what is needed to build the model again
state/<name>.safetensors    training state by name: model, ema, opt; generator, discriminator, opt_g, opt_d; rng
checkpoint.json         the manifest: step, attempt, data position, hash of every other file
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import safetensors.torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from torch import Tensor

from sonarc.checkpoint.state import load_tensors
from sonarc.contracts import store
from sonarc.contracts.checkpoint import FOLDER, CheckpointManifest, folder_name, read_manifest, whole
from sonarc.contracts.config import AudioConfig, CodecConfig, DiTConfig, SonarcConfig, TextConfig
from sonarc.contracts.errors import CheckpointError
from sonarc.contracts.hashing import canonical_json, sha256_bytes
from sonarc.dit.model import DiT
from sonarc.undrawn import undrawn

MODEL, CONFIG, MANIFEST = "model.safetensors", "config.json", "checkpoint.json"
CLAIM = re.compile(r"^(\d+)\.json$")
LOG = logging.getLogger(__name__)


class ModelSections(BaseModel):
    """`config.json`: the sections of the config tree that a model's weights are bound to."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    audio: AudioConfig
    codec: CodecConfig
    text: TextConfig
    dit: DiTConfig
    published: dict[str, Any] | None = None
    """The `model_config.json` of an imported model, for its export; None for Sonarc's own."""


def sections(config: SonarcConfig) -> ModelSections:
    """The sections of a whole config tree that a checkpoint keeps."""
    return ModelSections(audio=config.audio, codec=config.codec, text=config.text, dit=config.dit)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint read back, every file's hash verified.

    Attributes:
        uri: its folder.
        manifest: `checkpoint.json`.
        config: `config.json`.
        model: the weights to use.
        state: training state by name; empty when only the weights were asked for.
    """

    uri: str
    manifest: CheckpointManifest
    config: dict[str, Any]
    model: dict[str, Tensor]
    state: dict[str, dict[str, Tensor]]


def save_checkpoint(
    below: str,
    *,
    kind: Literal["base", "generator"],
    step: int,
    attempt: int,
    position: int,
    model: Mapping[str, Tensor],
    config: Mapping[str, Any],
    config_sha256: str,
    state: Mapping[str, Mapping[str, Tensor]] | None = None,
    lineage: Mapping[str, str] | None = None,
) -> tuple[str, CheckpointManifest]:
    """Write `<below>/step-N.attempt-A/` and return its URI and manifest.

    Args:
        below: URI of the folder that holds a training's checkpoints.
        kind: which network it is.
        step: optimizer steps done.
        attempt: number of this attempt (`claim_attempt`): it fences off older, still running ones.
        position: clips drawn so far.
        model: the weights to use.
        config: plain JSON data that builds the model again (`sections(…).model_dump(mode="json")`).
        config_sha256: hash of the settings that shape the training.
        state: training state, name → tensors.
        lineage: hashes of what it came from.

    Raises:
        CheckpointError: a newer attempt writes here already, or this very checkpoint exists.
        StoreError: the store refuses, or is full; the folder then has no manifest and counts as absent.
    """
    existing = _attempts(below)
    if existing and max(existing) > attempt:
        raise CheckpointError(
            f"Attempt {attempt} may not write to {below}: attempt {max(existing)} has taken over.", "Let this one end."
        )
    uri = store.join(below, folder_name(step, attempt))
    if store.exists(store.join(uri, MANIFEST)):
        raise CheckpointError(f"The checkpoint {uri} exists already.", "Start a new attempt.")
    files = {MODEL: store.write_bytes(store.join(uri, MODEL), _pack(model))}
    files[CONFIG] = store.write_bytes(store.join(uri, CONFIG), canonical_json(dict(config)).encode())
    for name, tensors in (state or {}).items():
        path = f"state/{name}.safetensors"
        files[path] = store.write_bytes(store.join(uri, path), _pack(tensors))
    manifest = CheckpointManifest(
        kind=kind,
        step=step,
        attempt=attempt,
        position=position,
        config_sha256=config_sha256,
        files=files,
        lineage=dict(lineage or {}),
    )
    store.write_json(store.join(uri, MANIFEST), manifest.model_dump(mode="json", by_alias=True))
    return uri, manifest


def load_checkpoint(uri: str, *, state: bool = True) -> Checkpoint:
    """Read a checkpoint, verifying the hash of every file that is read.

    Args:
        uri: a checkpoint folder.
        state: whether to read the training state, or the weights only.

    Raises:
        StoreError: no whole checkpoint there.
        CheckpointError: a file is missing, extra, altered or no safetensors file.
    """
    manifest = read_manifest(uri)
    found = set(store.list_files(uri)) - {MANIFEST}
    if found != set(manifest.files):
        raise CheckpointError(
            f"The checkpoint {uri} lacks {sorted(set(manifest.files) - found)} and holds unnamed "
            f"{sorted(found - set(manifest.files))}.",
            "Use another checkpoint.",
        )
    if not {MODEL, CONFIG} <= set(manifest.files):
        raise CheckpointError(f"The checkpoint {uri} names no {MODEL} or no {CONFIG}.", "Use another checkpoint.")
    try:
        config = json.loads(_read(uri, CONFIG, manifest))
    except ValueError as error:
        raise CheckpointError(f"{uri}/{CONFIG} is not JSON: {error}.", "Use another checkpoint.") from error
    return Checkpoint(
        uri=uri,
        manifest=manifest,
        config=config,
        model=_unpack(uri, MODEL, manifest),
        state={
            path.removeprefix("state/").removesuffix(".safetensors"): _unpack(uri, path, manifest)
            for path in manifest.files
            if state and path.startswith("state/")
        },
    )


def resume_point(below: str, config_sha256: str) -> Checkpoint | None:
    """The newest checkpoint to go on from, or None to start afresh. Damaged ones are passed over.

    Raises:
        CheckpointError: the newest whole checkpoint was trained with other settings.
    """
    for uri, manifest in whole(below):
        if manifest.config_sha256 != config_sha256:
            raise CheckpointError(
                f"The checkpoint {uri} was trained with other settings.", "Start in another folder, or restore them."
            )
        try:
            return load_checkpoint(uri)
        except CheckpointError as error:
            LOG.warning("passed over: %s", error.message)
    return None


def claim_attempt(below: str) -> int:
    """Start a new attempt at a training: its number is above that of every attempt so far; the first is 1.

    The claim is recorded at once, so that an older attempt that still runs can write no further checkpoint, even
    before the new one has written any.
    """
    number = max(_attempts(below), default=0) + 1
    store.write_json(store.join(below, "attempts", f"{number}.json"), {"attempt": number})
    return number


def prune_checkpoints(below: str, *, keep: int) -> None:
    """Delete all but the `keep` newest whole checkpoints, and what was left half-written."""
    kept = [uri for uri, _ in islice(whole(below), keep)]
    for name in {name.split("/", 1)[0] for name in store.list_files(below)}:
        if FOLDER.match(name) and store.join(below, name) not in kept:
            store.remove_folder(store.join(below, name))


def load_dit(uri: str) -> tuple[DiT, ModelSections]:
    """The network of a checkpoint, in evaluation mode, and the settings it is bound to.

    Raises:
        StoreError, CheckpointError: as for `load_checkpoint`, or its weights do not fit its own config.
    """
    checkpoint = load_checkpoint(uri, state=False)
    try:
        bound = ModelSections.model_validate(checkpoint.config)
    except ValidationError as error:
        raise CheckpointError(
            f"{uri}/{CONFIG} does not describe a model: {error}.", "Use another checkpoint."
        ) from error
    return dit_of(checkpoint.model, bound.dit, bound.text.width), bound


def dit_of(tensors: Mapping[str, Tensor], config: DiTConfig, text_width: int, *, what: str = "model") -> DiT:
    """A network in evaluation mode whose weights are these tensors: not copies, and nothing is drawn first.

    Raises:
        CheckpointError: keys or shapes that do not fit `config`.
    """
    with undrawn():
        model = DiT(config, text_width)
    load_tensors(model, tensors, what=what, take=True)
    return model.eval().requires_grad_(False)


def _attempts(below: str) -> list[int]:
    numbers = []
    for name in store.list_files(below):
        top, _, rest = name.partition("/")
        if match := FOLDER.match(top):
            numbers.append(int(match[2]))
        elif top == "attempts" and (match := CLAIM.match(rest)):
            numbers.append(int(match[1]))
    return numbers


def _pack(tensors: Mapping[str, Tensor]) -> bytes:
    return safetensors.torch.save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})


def _read(uri: str, path: str, manifest: CheckpointManifest) -> bytes:
    data = store.read_bytes(store.join(uri, path))
    if sha256_bytes(data) != manifest.files[path]:
        raise CheckpointError(f"{uri}/{path} is not what the manifest names: its hash differs.", "Do not load it.")
    return data


def _unpack(uri: str, path: str, manifest: CheckpointManifest) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load(_read(uri, path, manifest))
    except SafetensorError as error:
        raise CheckpointError(f"{uri}/{path} is no safetensors file: {error}.", "Use another checkpoint.") from error
