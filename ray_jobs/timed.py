"""The pre-training of the benchmark `scale`: its steps are noted, over Ray Train as the pipeline runs it, or bare.

    python -m ray_jobs.timed --request <uri of request.json> --notes <path> [--bare]

Bare is the same loop in this very process, in the environment that a worker of Ray Train has.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from ray_jobs.job import Outcome, StageContext, read_request, run_job
from ray_jobs.training import check_workers, train
from sonarc.bench.timed import TimedJob, timed_pretrain
from sonarc.contracts import log
from sonarc.contracts.checkpoint import read_manifest
from sonarc.contracts.computing import restart_for_computing
from sonarc.contracts.config import SonarcConfig
from sonarc.contracts.dataset import read_latents
from sonarc.contracts.result import Artifact, StageRequest
from sonarc.training.loop import PretrainJob


def run(context: StageContext, notes: str) -> Outcome:
    """Train over Ray Train."""
    check_workers(context, context.config.pretrain.batch)
    job = _job(context.config, context.input("encode", "latents").uri)
    uri, _ = train(context, timed_pretrain, TimedJob(job, notes))
    return Outcome({"base": Artifact(uri=uri, sha256=read_manifest(uri).sha256())})


def bare(request: StageRequest, notes: str) -> None:
    """Train in this process."""
    import torch

    from sonarc.training.worker import LocalWorker

    torch.set_num_threads(request.config.compute.threads)
    job = _job(request.config, request.input_results()["encode"].outputs["latents"].uri)
    with TemporaryDirectory(prefix="sonarc-bare-") as place:
        worker = LocalWorker.start(Path(place).as_uri(), lambda step, total, metrics: None)
        timed_pretrain(worker, TimedJob(job, notes))


def _job(config: SonarcConfig, latents_uri: str) -> PretrainJob:
    return PretrainJob(config, read_latents(latents_uri).dataset_uri, latents_uri, {})


def main() -> None:
    """Run one training as a process."""
    parser = argparse.ArgumentParser(prog="python -m ray_jobs.timed", description=__doc__)
    parser.add_argument("--request", required=True, help="location of the JSON document of a StageRequest")
    parser.add_argument("--notes", required=True, help="file that takes a line a step")
    parser.add_argument("--bare", action="store_true", help="without Ray")
    asked = parser.parse_args()
    log.setup()
    request = read_request(asked.request)
    if not asked.bare:
        run_job("pretrain", partial(run, notes=asked.notes), request)
        return
    restart_for_computing(request.config.compute.threads)
    bare(request, asked.notes)


if __name__ == "__main__":
    main()
