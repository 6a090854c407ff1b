"""What a stage asks for and what it leaves: `StageRequest`, `StageResult`, keys and the stage cache.

A stage is done when `<store>/stages/<stage>/<key>/result.json` exists; it is written last. The key
is a hash of everything the outcome depends on, so the file is also the cache.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sonarc.contracts import store
from sonarc.contracts.config import SonarcConfig
from sonarc.contracts.errors import DataError, SonarcError
from sonarc.contracts.hashing import sha256_code, sha256_json
from sonarc.contracts.stages import STAGES

RESULT_SCHEMA = "sonarc.result/1"
RECORDED_PACKAGES = ("torch", "ray", "kfp", "mlflow", "numpy", "pyarrow", "webdataset", "optuna")


class Artifact(BaseModel):
    """A named input or output of a stage: where it is and the hash of its content."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    uri: str
    sha256: str
    """Hash of the artifact's manifest (or of the file itself), so equal hashes mean equal content."""


class StageFailure(BaseModel):
    """Why a stage failed, in the words a user reads."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    code: str
    message: str
    hint: str = ""


class StageResult(BaseModel):
    """`result.json`, the outcome of one stage."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    schema_: Literal["sonarc.result/1"] = Field(default="sonarc.result/1", alias="schema")
    stage: str
    key: str
    status: Literal["succeeded", "failed"]
    inputs: dict[str, Artifact] = {}
    outputs: dict[str, Artifact] = {}
    metrics: dict[str, float] = {}
    counts: dict[str, int] = {}
    seconds: float = 0.0
    """Wall time of the stage's own work."""
    versions: dict[str, str] = {}
    mlflow_run_id: str | None = None
    """The nested MLflow run that recorded the work (not of a later cache hit)."""
    error: StageFailure | None = None


class TrackingRef(BaseModel):
    """Where a stage reports: the MLflow server and the pipeline's parent run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    uri: str
    experiment: str
    parent_run_id: str
    outbox: str = ""
    """Folder for what the server cannot be told while it is away; empty: nowhere."""


class StageRequest(BaseModel):
    """Everything a stage needs to run: written as JSON beside the run, read by `python -m ray_jobs.<stage>`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stage: str
    store: str
    """URI of the store's root."""
    config: SonarcConfig
    inputs: dict[str, str] = {}
    """Upstream stage name → URI of its stage folder (which holds result.json)."""
    fingerprint: str = ""
    """Hash of what lies outside the inputs (users' own audio, the champion's package); part of the key."""
    champion: str = ""
    """URI of the champion's package, for stages that compare with it; its hash is in the fingerprint."""
    parent: str = ""
    """URI of the dataset that ingest adds to; its hash is in the fingerprint."""
    base: str = ""
    """URI of the package of the base that pre-training begins with; its hash is in the fingerprint."""
    tracking: TrackingRef | None = None
    progress: str = ""
    """Local path of the run's `progress.jsonl`; empty: no progress is written."""

    def input_results(self) -> dict[str, StageResult]:
        """The results of the upstream stages, read and checked."""
        return {name: read_result(uri) for name, uri in sorted(self.inputs.items())}

    def key(self) -> str:
        """sha256(stage, code, config slice, hashes of the inputs' outputs, outside fingerprint), 32 hex digits."""
        return stage_key(
            self.stage,
            self.config,
            {name: result.outputs for name, result in self.input_results().items()},
            self.fingerprint,
        )

    def folder(self) -> str:
        """URI of this stage's folder in the store."""
        return stage_folder(self.store, self.stage, self.key())


def stage_key(
    stage: str,
    config: SonarcConfig,
    inputs: Mapping[str, Mapping[str, Artifact]],
    fingerprint: str = "",
) -> str:
    """The name of a stage's outcome. Run ids, times and places never enter it.

    Args:
        stage: a name in `STAGES`.
        config: the whole tree; only the stage's slice counts. Seeds are part of the config.
        inputs: upstream stage → its outputs; only their hashes count, not where they lie.
        fingerprint: hash of what lies outside the store.
    """
    spec = STAGES[stage]
    tree = config.model_dump(mode="json")
    return sha256_json(
        {
            "stage": stage,
            "code": sha256_code(spec.code),
            "config": {path: _at(tree, path) for path in spec.config},
            "inputs": {
                name: {output: artifact.sha256 for output, artifact in outputs.items()}
                for name, outputs in inputs.items()
            },
            "fingerprint": fingerprint,
        }
    )[:32]


def _at(tree: Any, path: str) -> Any:
    for part in path.split("."):
        tree = tree[part]
    return tree


def stage_folder(store_uri: str, stage: str, key: str) -> str:
    """`<store>/stages/<stage>/<key>`."""
    return store.join(store_uri, "stages", stage, key)


def read_result(folder: str) -> StageResult:
    """The result of a finished stage.

    Raises:
        StoreError: no result there. DataError: it does not follow the schema.
    """
    uri = store.join(folder, "result.json")
    try:
        return StageResult.model_validate(store.read_json(uri))
    except ValidationError as error:
        raise DataError(
            f"{uri} does not follow {RESULT_SCHEMA}: {error}.", "Remove the folder and run again."
        ) from error


def cached_result(folder: str) -> StageResult | None:
    """The result in `folder` if the stage succeeded there before, else None."""
    if not store.exists(store.join(folder, "result.json")):
        return None
    result = read_result(folder)
    return result if result.status == "succeeded" else None


def write_result(folder: str, result: StageResult) -> None:
    """Write `result.json`: the last act of a stage."""
    store.write_json(store.join(folder, "result.json"), result.model_dump(mode="json", by_alias=True))


def failure_of(error: BaseException) -> StageFailure:
    """How an exception is recorded in result.json."""
    if isinstance(error, SonarcError):
        return StageFailure(code=error.code, message=error.message, hint=error.hint)
    return StageFailure(
        code="internal", message=f"{type(error).__name__}: {error}", hint="The stage's log has the traceback."
    )


def recorded_versions(names: Iterable[str] = RECORDED_PACKAGES) -> dict[str, str]:
    """Versions of Python and of the packages that shape results."""
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


class Stopwatch:
    """Wall seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start
