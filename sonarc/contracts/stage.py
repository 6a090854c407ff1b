"""What a stage's work is given and what it gives back, wherever it runs."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from sonarc.contracts import store
from sonarc.contracts.config import SonarcConfig
from sonarc.contracts.errors import StageError
from sonarc.contracts.progress import ProgressWriter
from sonarc.contracts.result import (
    Artifact,
    StageRequest,
    StageResult,
    Stopwatch,
    failure_of,
    recorded_versions,
    write_result,
)


class Run(Protocol):
    """Where a stage reports parameters, curves and files (an MLflow run, or nowhere)."""

    @property
    def id(self) -> str | None: ...

    def log_params(self, params: Mapping[str, Any]) -> None: ...

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None: ...

    def log_file(self, path: Path, folder: str = "") -> None: ...

    def log_dict(self, document: Any, name: str) -> None: ...

    def child(self, name: str) -> AbstractContextManager[Run]: ...


@dataclass(frozen=True)
class Outcome:
    """What a stage made."""

    outputs: dict[str, Artifact]
    metrics: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class StageContext:
    """What a stage's work is given.

    Attributes:
        folder: URI of the stage's folder in the store; its content counts once result.json is there.
        scratch: a local folder, deleted afterwards.
    """

    request: StageRequest
    config: SonarcConfig
    inputs: dict[str, StageResult]
    folder: str
    scratch: Path
    progress: ProgressWriter
    run: Run

    def input(self, stage: str, output: str) -> Artifact:
        """An output of an upstream stage."""
        try:
            return self.inputs[stage].outputs[output]
        except KeyError as error:
            raise StageError(
                f"The stage {self.request.stage!r} was not given the output {output!r} of {stage!r}.",
                "Pass the upstream stage's folder among the request's inputs.",
            ) from error


Work = Callable[[StageContext], Outcome]


@contextmanager
def _scratch() -> Iterator[Path]:
    place = Path(tempfile.mkdtemp(prefix="sonarc-"))
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def execute(request: StageRequest, work: Work, run: Run) -> StageResult:
    """Do one stage's work and leave its result.json, written last.

    A failure leaves a result with status `failed` and its error, which a later run does not take
    for an outcome; what training stages have saved stays, so that they resume.
    """
    key = request.key()
    folder = store.join(request.store, "stages", request.stage, key)
    inputs = request.input_results()
    watch = Stopwatch()
    progress = Path(request.progress) if request.progress else None
    given = {
        f"{stage}.{name}": artifact for stage, result in inputs.items() for name, artifact in result.outputs.items()
    }
    try:
        with _scratch() as scratch:
            context = StageContext(
                request=request,
                config=request.config,
                inputs=inputs,
                folder=folder,
                scratch=scratch,
                progress=ProgressWriter(progress or scratch / "progress.jsonl", request.stage),
                run=run,
            )
            outcome = work(context)
    except BaseException as error:
        failed = StageResult(
            stage=request.stage,
            key=key,
            status="failed",
            inputs=given,
            seconds=watch.seconds,
            versions=recorded_versions(),
            mlflow_run_id=run.id,
            error=failure_of(error),
        )
        write_result(folder, failed)
        raise
    result = StageResult(
        stage=request.stage,
        key=key,
        status="succeeded",
        inputs=given,
        outputs=outcome.outputs,
        metrics=outcome.metrics,
        counts=outcome.counts,
        seconds=watch.seconds,
        versions=recorded_versions(),
        mlflow_run_id=run.id,
    )
    write_result(folder, result)
    return result
