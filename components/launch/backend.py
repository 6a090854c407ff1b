"""The one interface behind which a stage finds its Ray: a job in, how it ended out."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sonarc.contracts import store
from sonarc.contracts.progress import ProgressWriter
from sonarc.contracts.result import StageRequest

LOG_TAIL_LINES = 30
"""So many last lines of a job's log go into the message of a stage that left no reason of its own."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StageJob:
    """A stage that is to run on Ray.

    Attributes:
        folder: URI of the stage's folder in the store.
        run: name of the pipeline run; empty when nobody named it.
    """

    request: StageRequest
    folder: str
    run: str

    @property
    def stage(self) -> str:
        """A name in `sonarc.contracts.stages.STAGES`."""
        return self.request.stage

    def request_uri(self, attempt: str) -> str:
        """Where the job of an attempt reads its request."""
        return store.join(self.request.store, "requests", f"{attempt}.json")

    def command(self, python: str, attempt: str) -> list[str]:
        """What the job runs."""
        return [python, "-m", f"ray_jobs.{self.stage}", "--request", self.request_uri(attempt)]

    def prepare(self, attempt: str) -> None:
        """Write the request of a new attempt. A backend calls this just before it starts a job of its own."""
        store.write_json(self.request_uri(attempt), self.request.model_dump(mode="json"))
        # What an earlier attempt left must not be taken for this one's.
        store.remove_file(store.join(self.folder, "result.json"))

    def say(self, message: str) -> None:
        """Report what the job waits for: in the component's log, and in the run's progress if there is one."""
        logger.info("%s: %s", self.stage, message)
        if self.request.progress:
            ProgressWriter(Path(self.request.progress), self.stage)(0, 0, message=message)


@dataclass(frozen=True)
class Ended:
    """How a stage's Ray job ended.

    Attributes:
        message: what Ray says of it.
        log: the end of its log.
    """

    succeeded: bool
    message: str
    log: str


class Backend(Protocol):
    """A way to run Ray jobs."""

    def run(self, job: StageJob) -> Ended:
        """Run a job to its end, its log on standard output; a job that is given up (Ctrl-C, SIGTERM) is stopped.

        Raises:
            StageError: the job could not be started or followed, or the cluster ended it.
        """
        ...

    def cleanup(self, run: str) -> list[str]:
        """End whatever jobs of a pipeline run are left, and name them. Safe to repeat."""
        ...


def tail(log: str) -> str:
    """The last lines of a log."""
    return "\n".join(log.splitlines()[-LOG_TAIL_LINES:])
