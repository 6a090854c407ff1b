"""The Ray jobs API of a cluster that is there already: a local head, or a persistent one."""

from __future__ import annotations

import contextlib
import shlex
import sys
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from components.launch.backend import Ended, StageJob, tail
from sonarc.contracts.errors import StageError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

POLL_SECONDS = (0.2, 2.0)
"""Between two looks at a Ray job: at first, and at most. Each look costs Ray's dashboard some 0.1 s of a CPU."""
PATIENCE_SECONDS = 120.0
"""Ray's dashboard may be away for so long while a job runs on: it is started again when it dies. Its agent may come up
so much later than itself."""
NO_AGENT = "No available agent"
"""Ray's word for that."""
STOP_SECONDS = 60.0
"""Given to a job of an earlier attempt to end."""
RUN_KEY, STAGE_KEY = "sonarc_run", "sonarc_stage"
"""Metadata of a Ray job: the pipeline run and the stage it belongs to."""


@dataclass(frozen=True)
class RayJobs:
    """A backend over the Ray jobs API at `address`, `http://host:port`."""

    address: str

    def run(self, job: StageJob) -> Ended:
        """Submit the stage as a Ray job and follow its log; what an earlier attempt left running is ended first."""
        from ray.job_submission import JobSubmissionClient

        client = JobSubmissionClient(self.address)
        if job.run:
            self._end_earlier(client, job)
        attempt = f"{job.stage}-{uuid.uuid4().hex[:12]}"
        job.prepare(attempt)
        try:
            self._submit(client, job, attempt)
            return self._follow(client, attempt)
        except BaseException:  # the job may have begun though its answer was lost
            with contextlib.suppress(Exception):
                client.stop_job(attempt)
            raise

    def cleanup(self, run: str) -> list[str]:
        """Stop the jobs of a run that a killed component left behind."""
        from ray.job_submission import JobSubmissionClient

        client = JobSubmissionClient(self.address)
        left = _left(client, {RUN_KEY: run})
        for name in left:
            client.stop_job(name)
        return left

    def _end_earlier(self, client: JobSubmissionClient, job: StageJob) -> None:
        """A component that was killed could not stop its job: two of them would wait for each other's CPUs."""
        until = time.monotonic() + STOP_SECONDS
        wanted = {RUN_KEY: job.run, STAGE_KEY: job.stage}
        for name in _left(client, wanted):
            job.say(f"stops the Ray job {name} of an earlier attempt")
            client.stop_job(name)
        while left := _left(client, wanted):
            if time.monotonic() > until:
                raise StageError(
                    f"The Ray job {left[0]} of an earlier attempt is still there after {STOP_SECONDS:.0f} s.",
                    f"Look: ray job status {left[0]} --address {self.address}",
                )
            time.sleep(POLL_SECONDS[0])

    def _submit(self, client: JobSubmissionClient, job: StageJob, attempt: str) -> None:
        """Hand a job over. Ray's dashboard answers before the agent is up that starts jobs, and waits 10 s for it."""
        from sonarc.contracts.computing import computing_env

        until = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                client.submit_job(
                    # Ray takes the entrypoint as one string; every part is ours and quoted.
                    entrypoint=shlex.join(job.command(sys.executable, attempt)),
                    submission_id=attempt,
                    runtime_env={"env_vars": computing_env(job.request.config.compute.threads)},
                    metadata={RUN_KEY: job.run, STAGE_KEY: job.stage},
                )
                return
            except RuntimeError as error:
                if NO_AGENT not in str(error):
                    raise
                if time.monotonic() > until:
                    raise StageError(
                        f"Ray at {self.address} has had nobody to start jobs for {PATIENCE_SECONDS:.0f} s.",
                        "Free some CPU or memory and try again; its log says more.",
                    ) from error
            time.sleep(POLL_SECONDS[0])

    def _follow(self, client: JobSubmissionClient, attempt: str) -> Ended:
        """Copy a job's log to standard output until it ends."""
        shown, pause, answered = 0, POLL_SECONDS[0], time.monotonic()
        while True:
            try:
                info, text = client.get_job_info(attempt), client.get_job_logs(attempt)
            except (OSError, RuntimeError) as error:  # no answer, and an answer that is an error
                away = time.monotonic() - answered
                if away > PATIENCE_SECONDS:
                    raise StageError(
                        f"Ray at {self.address} has not told of the job {attempt} for {away:.0f} s: {error}",
                        f"Does it run? ray job status {attempt} --address {self.address}",
                    ) from error
            else:
                answered = time.monotonic()
                sys.stdout.write(text[shown:])
                sys.stdout.flush()
                shown = len(text)
                if info.status.is_terminal():
                    return Ended(info.status == "SUCCEEDED", info.message or "", tail(text))
            time.sleep(pause)
            pause = min(1.1 * pause, POLL_SECONDS[1])


def _left(client: JobSubmissionClient, wanted: dict[str, str]) -> list[str]:
    """Jobs with this metadata that go on."""

    def ours(found: Any) -> bool:
        metadata = found.metadata or {}
        return bool(found.submission_id) and all(metadata.get(key) == value for key, value in wanted.items())

    return [str(job.submission_id) for job in client.list_jobs() if ours(job) and not job.status.is_terminal()]
