"""The Ray jobs API of a cluster that is there already: a local head, or a persistent one."""

from __future__ import annotations

import contextlib
import shlex
import sys
import time
import uuid
from dataclasses import dataclass

from components.launch.backend import Ended, StageJob, tail

POLL_SECONDS = (0.2, 2.0)
"""Between two looks at a Ray job: at first, and at most. Each look costs Ray's dashboard some 0.1 s of a CPU."""
RUN_KEY = "sonarc_run"
"""Metadata of a Ray job: the pipeline run it belongs to."""


@dataclass(frozen=True)
class RayJobs:
    """A backend over the Ray jobs API at `address`, `http://host:port`."""

    address: str

    def run(self, job: StageJob) -> Ended:
        """Submit the stage as a Ray job and follow its log."""
        from ray.job_submission import JobStatus, JobSubmissionClient

        from ray_jobs.job import worker_env

        attempt = f"{job.stage}-{uuid.uuid4().hex[:12]}"
        job.prepare(attempt)
        client = JobSubmissionClient(self.address)
        client.submit_job(
            # Ray takes the entrypoint as one string; every part is ours and quoted.
            entrypoint=shlex.join(job.command(sys.executable, attempt)),
            submission_id=attempt,
            runtime_env={"env_vars": worker_env(job.request.config.compute.threads)},
            metadata={RUN_KEY: job.run},
        )
        try:
            shown, pause = 0, POLL_SECONDS[0]
            while True:
                status = client.get_job_status(attempt)
                text = client.get_job_logs(attempt)
                sys.stdout.write(text[shown:])
                sys.stdout.flush()
                shown = len(text)
                if status.is_terminal():
                    break
                time.sleep(pause)
                pause = min(1.1 * pause, POLL_SECONDS[1])
        except BaseException:
            with contextlib.suppress(Exception):
                client.stop_job(attempt)
            raise
        return Ended(status == JobStatus.SUCCEEDED, client.get_job_info(attempt).message or "", tail(text))

    def cleanup(self, run: str) -> list[str]:
        """Stop the jobs of a run that a killed component left behind."""
        from ray.job_submission import JobSubmissionClient

        client = JobSubmissionClient(self.address)
        ended = []
        for job in client.list_jobs():
            ours = job.submission_id and (job.metadata or {}).get(RUN_KEY) == run
            if ours and not job.status.is_terminal():
                client.stop_job(job.submission_id)
                ended.append(job.submission_id)
        return ended
