"""The model registry: packages as versions of an MLflow registered model, and the alias that is served.

A version points at a package in the store and carries its hash; the same hash is never registered
twice. Every move of an alias leaves an audit entry in the store, and tags on the version.
"""

from __future__ import annotations

import fcntl
import getpass
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sonarc.contracts import store
from sonarc.contracts.errors import TrackingError
from sonarc.contracts.package import read_package
from sonarc.tracking import mlflow_client

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.exceptions import MlflowException

SHA_TAG, URI_TAG = "package_sha256", "package_uri"


class Registered(BaseModel):
    """A registered package."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    version: str
    package_uri: str
    package_sha256: str


@dataclass(frozen=True)
class Listed:
    """A version as a list shows it.

    Attributes:
        aliases: what points at it.
        when: when it was registered, UTC, ISO 8601.
    """

    registered: Registered
    aliases: tuple[str, ...]
    when: str


class AliasMove(BaseModel):
    """One audit entry: `<store>/audit/<model>/<number>.json`; nobody can write the same number twice."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    schema_: Literal["sonarc.audit/1"] = Field(default="sonarc.audit/1", alias="schema")
    when: str
    """UTC, ISO 8601."""
    who: str
    model: str
    alias: str
    from_version: str | None
    to_version: str
    package_sha256: str
    why: str
    run_id: str | None = None
    """The MLflow run that moved it."""


class Registry:
    """The registry of one tracking server, for packages of one store.

    Args:
        uri: a tracking server or `sqlite:///<file>`.
        store_uri: root of the store that holds packages and the audit log.
    """

    def __init__(self, uri: str, store_uri: str) -> None:
        self.uri, self.store_uri = uri, store_uri
        with mlflow_client.explained(uri):
            mlflow_client.initialise(uri)
            self._client: MlflowClient = mlflow_client.client(uri)

    def register(
        self, model: str, package_uri: str, *, run_id: str | None = None, tags: Mapping[str, str] | None = None
    ) -> Registered:
        """Register a package as the next version of `model`, or find the version that holds it already.

        Args:
            model: name of the registered model; made if there is none.
            package_uri: folder of the package; its manifest is checked.
            run_id: the MLflow run it came from.
            tags: further labels of the version.

        Raises:
            CheckpointError: no valid package. TrackingError: the registry refuses or is away.
        """
        sha256 = read_package(package_uri).sha256()
        with mlflow_client.explained(self.uri), self._locked(model):
            if known := self._by_hash(model, sha256):
                return known
            self._ensure_model(model)
            created = self._client.create_model_version(
                model, package_uri, run_id, tags={**(tags or {}), SHA_TAG: sha256, URI_TAG: package_uri}
            )
        return Registered(model=model, version=str(created.version), package_uri=package_uri, package_sha256=sha256)

    def resolve(self, model: str, alias: str) -> Registered | None:
        """What an alias points at, or None while it points at nothing."""
        from mlflow.exceptions import MlflowException

        with mlflow_client.explained(self.uri):
            try:
                return _registered(self._client.get_model_version_by_alias(model, alias))
            except MlflowException as error:
                if _absent(error) or not self._exists(model, error):
                    return None
                raise

    def version(self, model: str, version: str) -> Registered:
        """One version.

        Raises:
            TrackingError: it does not exist, was deleted, or holds no package.
        """
        from mlflow.exceptions import MlflowException

        with mlflow_client.explained(self.uri):
            try:
                return _registered(self._client.get_model_version(model, version))
            except MlflowException as error:
                if not _absent(error) and self._exists(model, error):
                    raise
                raise TrackingError(
                    f"Version {version} of {model!r} does not exist or was deleted.",
                    "Choose a version that is listed in the registry.",
                ) from error

    def _exists(self, model: str, refusal: MlflowException) -> bool:
        """Whether there may be such a model, after a call about part of it failed: of one that is not there, a server
        with accounts says that its parts are forbidden, and only of the model itself that it is not there."""
        from mlflow.exceptions import MlflowException

        if refusal.error_code != "PERMISSION_DENIED":
            return True
        try:
            self._client.get_registered_model(model)
        except MlflowException as error:
            if _absent(error):
                return False
            raise
        return True

    def versions(self, model: str) -> list[Listed]:
        """Every version of `model` that holds a package, newest first; none where nothing is registered."""
        from mlflow.exceptions import MlflowException

        with mlflow_client.explained(self.uri):
            try:
                aliases = dict(self._client.get_registered_model(model).aliases)
            except MlflowException as error:
                if _absent(error):
                    return []
                raise
            found = self._client.search_model_versions(f"name = '{model.replace(chr(39), '')}'")
        listed = [
            Listed(
                _registered(version),
                tuple(sorted(name for name, at in aliases.items() if str(at) == str(version.version))),
                datetime.fromtimestamp(version.creation_timestamp / 1000, UTC).isoformat(timespec="seconds"),
            )
            for version in found
            if SHA_TAG in version.tags
        ]
        return sorted(listed, key=lambda one: -int(one.registered.version))

    def move(
        self,
        model: str,
        alias: str,
        version: str,
        why: str,
        *,
        expected: str | Literal["any"] | None = "any",
        run_id: str | None = None,
    ) -> AliasMove | None:
        """Point an alias at a version and write the audit entry.

        Args:
            expected: the version the caller believes it points at now (None: nothing); any other is
                refused, so that two movers do not undo each other unseen.
            run_id: the MLflow run that asks for it.

        Returns:
            The audit entry, or None where the alias pointed there already.

        Raises:
            TrackingError: no such version, its package is gone, or the alias was moved by somebody else.
        """
        target = self.version(model, version)
        if read_package(target.package_uri).sha256() != target.package_sha256:
            raise TrackingError(
                f"The package of {model!r} version {version} is not the one that was registered.",
                "Register it again.",
            )
        with self._locked(model):
            current = self.resolve(model, alias)
            now = current.version if current else None
            if expected not in ("any", now):
                raise TrackingError(
                    f"The alias {alias!r} of {model!r} points at version {now}, no longer at {expected}.",
                    "Look at the audit log, then decide again.",
                )
            if now == version:
                return None
            entry = AliasMove(
                when=datetime.now(UTC).isoformat(timespec="milliseconds"),
                who=_who(),
                model=model,
                alias=alias,
                from_version=now,
                to_version=version,
                package_sha256=target.package_sha256,
                why=why,
                run_id=run_id,
            )
            written = self._write_audit(entry)
            try:
                with mlflow_client.explained(self.uri):
                    self._client.set_registered_model_alias(model, alias, version)
                    for name, value in (("who", entry.who), ("when", entry.when), ("why", why)):
                        self._client.set_model_version_tag(model, version, f"{alias}.{name}", value)
            except TrackingError:
                store.remove_file(written)
                raise
        return entry

    def roll_back(self, model: str, alias: str, why: str) -> AliasMove:
        """Point an alias back at the version it pointed at before its last move.

        Raises:
            TrackingError: there was none before, or it was deleted.
        """
        current = self.resolve(model, alias)
        if current is None:
            raise TrackingError(f"The alias {alias!r} of {model!r} points at nothing.", "Promote a version first.")
        arrivals = [e for e in self.audit(model) if e.alias == alias and e.to_version == current.version]
        previous = arrivals[-1].from_version if arrivals else None
        if previous is None:
            raise TrackingError(
                f"Version {current.version} of {model!r} has no predecessor under {alias!r}.",
                "Name the version to go to instead.",
            )
        entry = self.move(model, alias, previous, why, expected=current.version)
        assert entry is not None  # the predecessor differs from the current version
        return entry

    def audit(self, model: str) -> list[AliasMove]:
        """Every move of the model's aliases, oldest first."""
        folder = store.join(self.store_uri, "audit", model)
        entries = []
        for name in store.list_files(folder):
            document: Any = store.read_json(store.join(folder, name))
            try:
                entries.append(AliasMove.model_validate(document))
            except ValidationError as error:
                raise TrackingError(
                    f"The audit entry {store.join(folder, name)} does not follow its schema: {error}.",
                    "Mend or remove the file.",
                ) from error
        return sorted(entries, key=lambda entry: entry.when)

    def _write_audit(self, entry: AliasMove) -> str:
        """Write the next entry of the log; of two who move at once one gets the number, the other is refused."""
        folder = store.join(self.store_uri, "audit", entry.model)
        where = store.join(folder, f"{len(store.list_files(folder)) + 1:06d}.json")
        document = entry.model_dump_json(by_alias=True, indent=2)
        if not store.create(where, document.encode()):
            raise TrackingError(
                f"Somebody else is moving {entry.alias!r} of {entry.model!r} at this moment.",
                "Look at the audit log, then decide again.",
            )
        return where

    def _by_hash(self, model: str, sha256: str) -> Registered | None:
        name = model.replace("'", "")
        found = self._client.search_model_versions(f"name = '{name}' AND tag.{SHA_TAG} = '{sha256}'")
        versions = [_registered(version) for version in found]
        return min(versions, key=lambda v: int(v.version), default=None)

    def _ensure_model(self, model: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(model)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    @contextmanager
    def _locked(self, model: str) -> Iterator[None]:
        """One mover at a time on this machine; in a bucket the audit log's next number is what they compete for."""
        place = store.local_path(self.store_uri)
        if place is None:
            yield
            return
        place.mkdir(parents=True, exist_ok=True)
        with (place / f".registry-{model}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _registered(version: ModelVersion) -> Registered:
    tags = dict(version.tags)
    if SHA_TAG not in tags or URI_TAG not in tags:
        raise TrackingError(
            f"Version {version.version} of {version.name!r} holds no Sonarc package.", "Register a package instead."
        )
    return Registered(
        model=version.name,
        version=str(version.version),
        package_uri=tags[URI_TAG],
        package_sha256=tags[SHA_TAG],
    )


def _absent(error: Any) -> bool:
    # A server answers RESOURCE_DOES_NOT_EXIST; for an unknown alias the database store says INVALID_PARAMETER_VALUE.
    return error.error_code == "RESOURCE_DOES_NOT_EXIST" or (
        error.error_code == "INVALID_PARAMETER_VALUE" and "not found" in str(error)
    )


def _who() -> str:
    try:
        return os.environ.get("SONARC_ACTOR") or getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return f"uid {os.getuid()}"


def read_registration(uri: str) -> Registered:
    """The registration a `promote` stage left (the file itself).

    Raises:
        TrackingError: it does not follow its schema.
    """
    document: Any = store.read_json(uri)
    try:
        return Registered.model_validate(document)
    except ValidationError as error:
        raise TrackingError(f"{uri} does not follow its schema: {error}.", "Promote again.") from error
