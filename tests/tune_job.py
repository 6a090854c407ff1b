"""The tune stage as a process of its own, whose trials measure a bowl in Ray tasks: to be killed.

    python tests/tune_job.py <uri of request.json>

Trials leave `began N` and `measured N` in the store's `log`, and stay as long as there is a file `hold`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import ray
from coordinator import bowl, note
from tiny_latents import write_encode_stage

from ray_jobs import tune
from ray_jobs.job import read_request
from sonarc.contracts import log, store
from sonarc.contracts.config import SonarcConfig
from sonarc.contracts.errors import SonarcError
from sonarc.contracts.result import Artifact, StageRequest, StageResult, TrackingRef, write_result
from sonarc.contracts.stage import execute
from sonarc.contracts.tuning import LossWeights
from sonarc.tracking.runs import stage_run
from sonarc.tuning.results import Measured
from sonarc.tuning.trial import Measure, Report, Settings


def request_for(root: Path, config: SonarcConfig, tracking: TrackingRef | None = None) -> StageRequest:
    """A request for the stage, with what it reads."""
    encode = store.join(root.as_uri(), "stages", "encode", "key")
    if not store.exists(encode):
        write_encode_stage(root, config)
    inputs = {"encode": encode}
    for stage, output in (("ingest", "dataset"), ("reference", "reference"), ("pretrain", "base")):
        inputs[stage] = store.join(root.as_uri(), "stages", stage, "key")
        artifact = Artifact(uri=store.join(root.as_uri(), output), sha256="0" * 64)
        done = StageResult(stage=stage, key="key", status="succeeded", outputs={output: artifact})
        write_result(inputs[stage], done)
    return StageRequest(stage="tune", store=root.as_uri(), config=config, inputs=inputs, tracking=tracking)


def start(request: StageRequest, output: Path, address: str, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start the stage on a cluster; what it says goes to a file."""
    uri = store.join(request.store, "tune.json")
    store.write_json(uri, request.model_dump(mode="json"))
    with output.open("ab") as log_file:
        return subprocess.Popen(
            [sys.executable, __file__, uri], env=os.environ | environment | {"RAY_ADDRESS": address},
            stdin=subprocess.DEVNULL, stdout=log_file, stderr=log_file, start_new_session=True,
        )  # fmt: skip


def watched(folder: Path) -> Measure:
    """The bowl, with notes."""

    def measure(settings: Settings, weights: LossWeights, report: Report) -> Measured:
        name = f"{weights.contrastive_weight:.6f}"
        note(folder, f"began {name}")
        while (folder / "hold").exists():
            time.sleep(0.05)
        note(folder, f"measured {name}")
        return bowl(weights)

    return measure


def main() -> None:
    log.setup()
    request = read_request(sys.argv[1])
    folder = store.local_path(request.store)
    assert folder is not None
    ray.init()
    try:
        with stage_run(request.tracking, "tune", request.key()) as run:
            execute(request, lambda context: tune.tune(context, watched(folder)), run)
    except SonarcError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
