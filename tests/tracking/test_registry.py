"""Registration, aliases, rollback and their audit trail, on a real MLflow database."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest

from sonarc.contracts import store
from sonarc.contracts.errors import CheckpointError, TrackingError
from sonarc.contracts.package import PackageLineage, PackageManifest
from sonarc.tracking import mlflow_client
from sonarc.tracking.registry import Registry

LINEAGE = PackageLineage(
    base_uri="file:///b",
    base_sha256="b",
    generator_sha256="g",
    codec_sha256="c",
    dataset_sha256="d",
    dataset_version=1,
    text_encoder="minilm:t",
)


@pytest.fixture
def registry(tracking_uri: str, tmp_path: Path) -> Registry:
    return Registry(tracking_uri, (tmp_path / "store").as_uri())


def package(registry: Registry, name: str, content: bytes) -> str:
    uri = store.join(registry.store_uri, "packages", name)
    sha256 = store.write_bytes(store.join(uri, "generator.safetensors"), content)
    manifest = PackageManifest(
        kind="generator", files={"generator.safetensors": sha256}, lineage=LINEAGE, config_sha256="x"
    )
    store.write_json(store.join(uri, "package.json"), manifest.model_dump(mode="json", by_alias=True))
    return uri


def test_same_package_is_registered_once(registry: Registry) -> None:
    first = registry.register("sonarc", package(registry, "a", b"one"))
    again = registry.register("sonarc", package(registry, "a", b"one"))
    other = registry.register("sonarc", package(registry, "b", b"two"))
    assert first == again
    assert (first.version, other.version) == ("1", "2")


def test_alias_moves_rolls_back_and_leaves_a_trail(registry: Registry) -> None:
    one = registry.register("sonarc", package(registry, "a", b"one"))
    two = registry.register("sonarc", package(registry, "b", b"two"))
    assert registry.resolve("sonarc", "champion") is None
    registry.move("sonarc", "champion", one.version, "first", expected=None)
    registry.move("sonarc", "champion", two.version, "better", expected="1", run_id="run")
    assert registry.resolve("sonarc", "champion") == two
    assert registry.move("sonarc", "champion", two.version, "again") is None
    registry.roll_back("sonarc", "champion", "it hisses")
    assert registry.resolve("sonarc", "champion") == one
    trail = [(e.from_version, e.to_version, e.why, e.run_id) for e in registry.audit("sonarc")]
    assert trail == [(None, "1", "first", None), ("1", "2", "better", "run"), ("2", "1", "it hisses", None)]
    assert all(entry.who and entry.when for entry in registry.audit("sonarc"))
    tags = mlflow_client.client(registry.uri).get_model_version("sonarc", "1").tags
    assert tags["champion.why"] == "it hisses"


def test_concurrent_move_is_noticed(registry: Registry) -> None:
    for name in ("a", "b"):
        registry.register("sonarc", package(registry, name, name.encode()))
    registry.move("sonarc", "champion", "1", "first")
    with pytest.raises(TrackingError, match="points at version 1"):
        registry.move("sonarc", "champion", "2", "second", expected=None)
    found = registry.resolve("sonarc", "champion")
    assert found is not None and found.version == "1"


def test_two_hosts_that_move_at_once_do_not_both_succeed(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        registry.register("sonarc", package(registry, name, name.encode()))
    other = Registry(registry.uri, registry.store_uri)
    create = store.create

    def beaten(uri: str, data: bytes) -> bool:  # the other host writes its entry just before ours
        monkeypatch.setattr(store, "create", create)
        other._locked = lambda model: nullcontext()  # type: ignore[assignment, method-assign, misc]
        other.move("sonarc", "champion", "2", "theirs", expected=None)
        return create(uri, data)

    monkeypatch.setattr(store, "create", beaten)
    with pytest.raises(TrackingError, match="Somebody else is moving 'champion'"):
        registry.move("sonarc", "champion", "1", "ours", expected=None)
    found = registry.resolve("sonarc", "champion")
    assert found is not None and found.version == "2"
    assert [entry.why for entry in registry.audit("sonarc")] == ["theirs"]


def test_a_move_that_mlflow_did_not_make_is_not_in_the_log(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.register("sonarc", package(registry, "a", b"one"))

    def away(*_: object) -> None:
        raise ConnectionError("away")

    monkeypatch.setattr(registry._client, "set_registered_model_alias", away)
    with pytest.raises(TrackingError, match="away"):
        registry.move("sonarc", "champion", "1", "why")
    assert registry.audit("sonarc") == []


def test_versions_are_listed_with_what_points_at_them(registry: Registry) -> None:
    assert registry.versions("sonarc") == []
    for name in ("a", "b"):
        registry.register("sonarc", package(registry, name, name.encode()))
    registry.move("sonarc", "champion", "1", "first")
    listed = [(one.registered.version, one.aliases) for one in registry.versions("sonarc")]
    assert listed == [("2", ()), ("1", ("champion",))]


def test_rollback_to_a_deleted_version_is_refused(registry: Registry) -> None:
    for name in ("a", "b"):
        registry.register("sonarc", package(registry, name, name.encode()))
    registry.move("sonarc", "champion", "1", "first")
    registry.move("sonarc", "champion", "2", "second")
    mlflow_client.client(registry.uri).delete_model_version("sonarc", "1")
    with pytest.raises(TrackingError, match="Version 1 of 'sonarc' does not exist or was deleted"):
        registry.roll_back("sonarc", "champion", "oops")
    found = registry.resolve("sonarc", "champion")
    assert found is not None and found.version == "2"


def test_rollback_without_a_predecessor_is_refused(registry: Registry) -> None:
    with pytest.raises(TrackingError, match="points at nothing"):
        registry.roll_back("sonarc", "champion", "oops")
    registry.register("sonarc", package(registry, "a", b"one"))
    registry.move("sonarc", "champion", "1", "first")
    with pytest.raises(TrackingError, match="no predecessor"):
        registry.roll_back("sonarc", "champion", "oops")


def test_package_that_changed_after_registration_is_not_promoted(registry: Registry) -> None:
    registered = registry.register("sonarc", package(registry, "a", b"one"))
    package(registry, "a", b"other")
    with pytest.raises(TrackingError, match="not the one that was registered"):
        registry.move("sonarc", "champion", registered.version, "why")


def test_package_with_a_file_too_many_is_not_registered(registry: Registry) -> None:
    uri = package(registry, "a", b"one")
    store.write_bytes(store.join(uri, "extra.pkl"), b"\x80\x04.")
    with pytest.raises(CheckpointError, match=r"extra\.pkl"):
        registry.register("sonarc", uri)
    assert registry.resolve("sonarc", "champion") is None
