"""A stage's run, and what it says it was made from: datasets as MLflow's inputs, models and all else as tags."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sonarc.contracts.dataset import read_dataset, read_latents
from sonarc.contracts.result import Artifact, StageRequest, StageResult
from sonarc.tracking.runs import StageRun, stage_run


@contextmanager
def tracked(request: StageRequest) -> Iterator[StageRun]:
    """The run of the stage that `request` asks for; it knows every output of the stages before, by hash."""
    with stage_run(request.tracking, request.stage, request.key()) as run:
        if request.tracking is not None:
            _log_inputs(run, request.stage, request.input_results())
        yield run


def _log_inputs(run: StageRun, stage: str, inputs: Mapping[str, StageResult]) -> None:
    tags = {}
    for before, result in inputs.items():
        for name, artifact in result.outputs.items():
            tags[f"sonarc.input.{before}.{name}"] = artifact.sha256
            if name in _FACTS:
                run.log_data(name, artifact.sha256, artifact.uri, _FACTS[name](artifact), stage)
    if tags:
        run.log_tags(tags)


def _of_dataset(artifact: Artifact) -> dict[str, Any]:
    manifest = read_dataset(artifact.uri)
    counts = {split: count.clips for split, count in manifest.splits.items()}
    return {"version": manifest.version, "clips": manifest.clips, "seconds": manifest.seconds, "splits": counts}


def _of_latents(artifact: Artifact) -> dict[str, Any]:
    manifest = read_latents(artifact.uri)
    return {"dataset_sha256": manifest.dataset_sha256, "encoder_sha256": manifest.encoder_sha256}


_FACTS = {"dataset": _of_dataset, "latents": _of_latents}
