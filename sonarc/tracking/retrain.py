"""How a run goes on from the champion: whether its data hold anything new, and the base that it begins with."""

from __future__ import annotations

import logging

from pydantic import ValidationError

from sonarc.contracts import store
from sonarc.contracts.config import AudioConfig, DiTConfig, TextConfig
from sonarc.contracts.dataset import read_dataset, read_latents
from sonarc.contracts.errors import CheckpointError, NothingNew, StoreError
from sonarc.contracts.package import PackageManifest, read_package
from sonarc.contracts.result import Artifact, StageRequest
from sonarc.tracking.registry import Registered, Registry

logger = logging.getLogger(__name__)

BOUND: dict[str, type[AudioConfig | TextConfig | DiTConfig]] = {
    "audio": AudioConfig, "text": TextConfig, "dit": DiTConfig,
}  # fmt: skip
"""Sections of the config tree that a base's weights are bound to."""


def require_new(request: StageRequest, dataset: Artifact) -> None:
    """Do nothing if the dataset says anything that the champion's does not: new clips, or other captions of old ones.

    Files that were refused make a version of the dataset, but nothing to learn from.

    Raises:
        NothingNew: it does not.
    """
    champion = _champion(request)
    if champion is None:
        return
    known = _index_of(read_package(champion.package_uri), dataset)
    if known != read_dataset(dataset.uri).index_sha256:
        return
    raise NothingNew(
        f"Nothing new: the sources hold no clip that version {champion.version} of {champion.model!r}, the champion, "
        "was not made from.",
        "Nothing was trained or promoted. To train all the same: --set retrain.only_new=false",
    )


def _index_of(package: PackageManifest, dataset: Artifact) -> str:
    """Hash of the index of the dataset that a package was made from; empty where it can no longer be known."""
    lineage = package.lineage
    uri = dataset.uri if lineage.dataset_sha256 == dataset.sha256 else lineage.dataset_uri
    try:
        return read_dataset(uri).index_sha256 if uri else ""
    except StoreError:
        return ""


def base_to_start_from(request: StageRequest) -> tuple[str, str]:
    """URI and hash of the package of the champion's base, for a pre-training to begin with; empty: from scratch.

    Raises:
        CheckpointError: a warm start is required, and that base does not fit.
    """
    wanted = request.config.retrain.warm_start
    champion = None if wanted == "off" else _champion(request)
    if champion is None:
        return "", ""
    lineage = read_package(champion.package_uri).lineage
    if misfit := _misfit(request, lineage.base_uri, lineage.base_sha256):
        said = f"The base of version {champion.version} of {champion.model!r} cannot be begun with: {misfit}."
        if wanted == "required":
            raise CheckpointError(said, "Train from scratch with --set retrain.warm_start=off, or put that back.")
        logger.warning("%s Pre-training begins from scratch.", said)
        return "", ""
    return lineage.base_uri, lineage.base_sha256


def _champion(request: StageRequest) -> Registered | None:
    if request.tracking is None:
        return None
    names = request.config.registry
    return Registry(request.tracking.uri, request.store).resolve(names.model, names.alias)


def _misfit(request: StageRequest, uri: str, sha256: str) -> str:
    """Why a base's package cannot be begun with, in words; empty if it can."""
    try:
        package = read_package(uri)
        tree = store.read_json(store.join(uri, "config.json"))
    except (StoreError, CheckpointError) as error:
        return error.message.rstrip(".")
    if package.sha256() != sha256 or package.kind != "base":
        return f"the package {uri} is not the one it was trained from"
    for name in BOUND:
        if _section(tree, name) != getattr(request.config, name):
            return f"it was trained with another {name} section than this run's"
    latents = read_latents(request.input_results()["encode"].outputs["latents"].uri)
    if package.lineage.encoder_sha256 != latents.encoder_sha256:
        made = package.lineage.encoder_sha256[:12] or "an encoder it does not name"
        return f"it was trained on latents of {made}, these are of {latents.encoder_sha256[:12]}"
    return ""


def _section(tree: dict[str, object], name: str) -> object:
    """A section of a package's config tree, with today's defaults for settings that came later."""
    try:
        return BOUND[name].model_validate(tree.get(name))
    except ValidationError:
        return None
