"""What a stage leaves beside the run's progress, and on its component's output artifact."""

from __future__ import annotations

import json

from pydantic import BaseModel, ConfigDict

from sonarc.contracts.result import StageFailure, StageResult


class StageRecord(BaseModel):
    """How a stage went in one pipeline run: kept beside the run's progress as `stages/<stage>.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stage: str
    folder: str
    """URI of the stage's folder in the store."""
    cached: bool
    seconds: float
    """Wall time in this run, start-up included; a cached stage takes next to none."""
    result: StageResult


class StageFailed(BaseModel):
    """`error.json` beside the run's progress: which stage failed, and why."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stage: str
    failure: StageFailure
    exit_code: int


def artifact_metadata(record: StageRecord) -> dict[str, str]:
    """What a component writes on its output artifact, as strings: kfp turns numbers into floats."""
    return {
        "stage": record.stage,
        "key": record.result.key,
        "cached": json.dumps(record.cached),
        "seconds": f"{record.seconds:.3f}",
    }
