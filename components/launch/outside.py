"""What lies outside the store, and may have changed since the last run under the same name: it enters the key."""

from __future__ import annotations

from pathlib import Path

from sonarc.contracts import store
from sonarc.contracts.hashing import sha256_bytes, sha256_json
from sonarc.contracts.result import StageRequest


def with_outside(request: StageRequest) -> StageRequest:
    """The request with the fingerprint of what its stage reads from outside, and where that is."""
    config, outside, champion, parent, base = request.config, [], "", "", ""
    if request.stage == "sources" and config.data.sources:
        from sonarc.data.sources import fingerprint

        outside.append(fingerprint(config.data.sources))
    if request.stage in ("encode", "tune", "evaluate"):  # a decoder of one's own may change while latents stay
        outside += _weights(config.codec.uri)
    if request.stage in ("tune", "evaluate"):
        outside += _weights(config.evaluate.clap)
    if request.stage == "evaluate":
        champion, sha256 = _champion(request)
        outside += [sha256] if champion else []
    if request.stage == "ingest":
        parent, sha256 = _parent(request)
        outside += [sha256] if parent else []
    if request.stage == "pretrain" and config.retrain.warm_start != "off":
        base, sha256 = _base(request)
        outside += [sha256] if base else []
    combined = sha256_json(outside) if outside else ""
    return request.model_copy(update={"fingerprint": combined, "champion": champion, "parent": parent, "base": base})


def _base(request: StageRequest) -> tuple[str, str]:
    """URI and hash of the package of the base that pre-training begins with; empty: from scratch."""
    from sonarc.tracking.retrain import base_to_start_from

    return base_to_start_from(request)


def _parent(request: StageRequest) -> tuple[str, str]:
    """URI and hash of the dataset that is to grow; empty for the first with these settings."""
    from sonarc.contracts.dataset import lineage_sha256, read_dataset
    from sonarc.data.growth import Latest, places

    latest = Latest.read(places(request.store, lineage_sha256(request.config.audio, request.config.data))[0])
    if latest is None:
        return "", ""
    parent = latest.parent_of(request.input_results()["sources"].outputs["sources"].sha256)
    return (parent, read_dataset(parent).sha256()) if parent else ("", "")


def _weights(location: str) -> list[str]:
    """Hashes of the files of a user's own weights folder; none for a name shipped with Sonarc or a hub id."""
    if "://" not in location and not Path(location).is_dir():
        return []
    return [sha256_bytes(store.read_bytes(store.join(location, name))) for name in store.list_files(location)]


def _champion(request: StageRequest) -> tuple[str, str]:
    """URI and hash of the champion's package, to be scored beside the candidate; empty if the two are one."""
    if request.tracking is None:
        return "", ""
    from sonarc.contracts.package import read_package
    from sonarc.tracking.registry import Registry

    settings = request.config.registry
    champion = Registry(request.tracking.uri, request.store).resolve(settings.model, settings.alias)
    if champion is None:
        return "", ""
    candidate = request.input_results()["posttrain"].outputs["generator"].sha256
    if read_package(champion.package_uri).lineage.generator_sha256 == candidate:
        return "", ""
    return champion.package_uri, champion.package_sha256
