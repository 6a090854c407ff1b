"""The frame every distributed job runs in: read the request, join Ray, track, work, write result.json.

    python -m ray_jobs.<stage> --request <uri of request.json>

Exit codes: 0 done; else the error's own (see `sonarc.contracts.errors`), with one clear sentence on
standard error and the same in result.json.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import sys

from pydantic import ValidationError

from sonarc.contracts import log, store
from sonarc.contracts.errors import ConfigError, SonarcError
from sonarc.contracts.result import StageRequest
from sonarc.contracts.stage import Outcome, StageContext, Work, execute

__all__ = ["Outcome", "StageContext", "main"]

logger = logging.getLogger(__name__)


def read_request(uri: str) -> StageRequest:
    """The request document a component wrote.

    Raises:
        StoreError: it cannot be read. ConfigError: it does not follow the schema.
    """
    try:
        return StageRequest.model_validate_json(store.read_bytes(uri))
    except ValidationError as error:
        raise ConfigError(
            f"The request {uri} does not follow its schema: {error}.", "Write it with StageRequest."
        ) from error


def main(stage: str) -> None:
    """Run one stage as a process. Called under `if __name__ == "__main__"` by each job.

    The job's module is imported by its name: what it defines is then found by Ray's workers, which know no
    `__main__` of ours.
    """
    work: Work = importlib.import_module(f"ray_jobs.{stage}").run
    parser = argparse.ArgumentParser(prog=f"python -m ray_jobs.{stage}", description=work.__doc__)
    parser.add_argument("--request", required=True, help="location of the JSON document of a StageRequest")
    arguments = parser.parse_args()
    log.setup()
    try:
        run_job(stage, work, read_request(arguments.request))
    except SonarcError as error:
        logger.error("%s", error)
        sys.exit(error.exit_code)
    except Exception:
        logger.exception("the stage %s failed", stage)
        sys.exit(1)


def run_job(stage: str, work: Work, request: StageRequest) -> None:
    """Join Ray, open the nested run, and execute the stage."""
    import ray

    from sonarc.tracking.lineage import tracked

    if request.stage != stage:
        raise ConfigError(f"The request is for the stage {request.stage!r}, not {stage!r}.", "Start its own job.")
    if not ray.is_initialized():
        ray.init(logging_level=logging.WARNING, log_to_driver=True)
    with tracked(request) as run:
        result = execute(request, work, run)
        run.log_metrics({name: value for name, value in result.metrics.items()})
        run.log_metrics({f"count_{name}": float(value) for name, value in result.counts.items()})
        run.log_metrics({"seconds": result.seconds})
    logger.info("%s finished in %.1f s", stage, result.seconds)
