"""Model packages: a checkpoint, its codec, its settings, its scores and its lineage in one folder of the store.

A package lies in `<store>/packages/<first 16 digits of its hash>/` and never changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from sonarc.contracts import store
from sonarc.contracts.checkpoint import read_manifest
from sonarc.contracts.config import SonarcConfig
from sonarc.contracts.errors import CheckpointError, StoreError
from sonarc.contracts.hashing import sha256_json, sha256_path
from sonarc.contracts.package import PackageLineage, PackageManifest, read_package

GENERATOR, CONFIG, SCORES, MANIFEST = "generator.safetensors", "config.json", "scores.json", "package.json"


def build_package(
    store_uri: str,
    *,
    kind: Literal["generator", "base"],
    checkpoint_uri: str,
    config: SonarcConfig,
    lineage: PackageLineage,
    scores: Mapping[str, Any],
) -> tuple[str, PackageManifest]:
    """Build a package in the store, or find that it is there.

    Args:
        store_uri: the store's root.
        kind: which network the checkpoint holds.
        checkpoint_uri: its folder; every byte taken from it is verified.
        config: the tree the model was trained with; what the checkpoint is bound to wins over it.
        lineage: where the model came from.
        scores: the evaluation card, plain JSON data.

    Returns:
        The package's URI and manifest.

    Raises:
        CheckpointError: the checkpoint is damaged or holds the other kind, or the codec is not the one of
            the lineage. StoreError: the store refuses or is full; no package then counts as there.
    """
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        tree = _copy_model(checkpoint_uri, kind, config, folder)
        _copy_codec(tree["codec"]["uri"], lineage.codec_sha256, folder / "codec")
        store.write_json((folder / CONFIG).as_uri(), tree)
        store.write_json((folder / SCORES).as_uri(), dict(scores))
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        manifest = PackageManifest(
            kind=kind,
            files={path.relative_to(folder).as_posix(): sha256_path(path) for path in files},
            lineage=lineage,
            config_sha256=sha256_json(tree),
        )
        uri = store.join(store_uri, "packages", manifest.sha256()[:16])
        if not _whole(uri, manifest):
            for name in manifest.files:
                store.move_in(folder / name, store.join(uri, name))
            store.write_json(store.join(uri, MANIFEST), manifest.model_dump(mode="json", by_alias=True))
    return uri, manifest


def _copy_model(checkpoint_uri: str, kind: str, config: SonarcConfig, folder: Path) -> dict[str, Any]:
    """Copy the weights; returns the config tree with the sections the checkpoint is bound to."""
    manifest = read_manifest(checkpoint_uri)
    if manifest.kind != kind:
        raise CheckpointError(
            f"The checkpoint {checkpoint_uri} holds a {manifest.kind}, not a {kind}.", "Use the other."
        )
    for source, target in (("model.safetensors", GENERATOR), (CONFIG, "checkpoint-config.json")):
        data = store.read_bytes(store.join(checkpoint_uri, source))
        (folder / target).write_bytes(data)
        if sha256_path(folder / target) != manifest.files.get(source):
            raise CheckpointError(
                f"The file {source} of the checkpoint {checkpoint_uri} is not the one its manifest names.",
                "Train that stage again.",
            )
    bound = folder / "checkpoint-config.json"
    tree = {**config.model_dump(mode="json"), **store.read_json(bound.as_uri())}
    bound.unlink()
    return tree


def _copy_codec(name_or_uri: str, sha256: str, folder: Path) -> None:
    """Write the codec's folder, with its card where it has one."""
    from sonarc.codec.package import load_codec, save_codec

    found = save_codec(load_codec(name_or_uri), folder.as_uri(), _card(name_or_uri))
    if found != sha256:
        raise CheckpointError(
            f"The codec {name_or_uri!r} has the hash {found[:16]}, the model was trained on {sha256[:16]}.",
            "Put back the codec the latents were made with.",
        )


def _card(name_or_uri: str) -> str:
    shipped = resources.files("sonarc") / "assets" / name_or_uri / "card.md"
    if "/" not in name_or_uri:
        return shipped.read_text("utf-8") if shipped.is_file() else ""
    where = store.join(name_or_uri, "card.md")
    return store.read_bytes(where).decode() if store.exists(where) else ""


def _whole(uri: str, manifest: PackageManifest) -> bool:
    try:
        return read_package(uri).sha256() == manifest.sha256()
    except (StoreError, CheckpointError):
        return False
