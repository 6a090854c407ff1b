"""What holds for all ingress replicas together: limits, the rollout, jobs and metrics. One small process, no torch."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from serving.jobs import JobAudio, Jobs, JobView, Order
from serving.limits import Limiter
from serving.metrics import Metrics
from serving.peers import GeneratorPeer
from serving.rollout import Rollout
from serving.state import Lineup
from serving.work import Admission, Denied, Report, Ticket
from sonarc.contracts.config import ServeConfig

_ITS_FAULT = ("internal", "timeout")
"""Errors that speak against a package."""


class Coordinator:
    """See the module.

    Args:
        config: how to serve.
        generators: what makes the jobs' clips.
    """

    def __init__(self, config: ServeConfig, generators: GeneratorPeer) -> None:
        self._limiter, self._rollout, self._metrics = Limiter(), Rollout(config), Metrics()
        self._jobs = Jobs(config, generators, on_end=lambda order: self._limiter.release(order.lease))

    def present(self, lineup: Lineup) -> None:
        """Other packages are served."""
        self._rollout.present(lineup)
        self._metrics.present(lineup)

    async def admit(self, ticket: Ticket) -> Admission | Denied:
        """Whether a key may, and which package answers an unpinned request."""
        lease = self._limiter.admit(ticket)
        if isinstance(lease, Denied):
            return lease
        slot, shadow = ("champion", False) if ticket.pinned else self._rollout.route()
        return Admission(lease, slot, shadow)  # type: ignore[arg-type]

    async def settle(self, reports: Sequence[Report]) -> None:
        """What became of some requests."""
        for report in reports:
            if report.lease:
                self._limiter.release(report.lease)
            self._metrics.observe(report)
            failed = report.code in _ITS_FAULT
            if report.package_sha256 and (failed or not report.code):
                self._rollout.record(report.slot, report.package_sha256, failed=failed, seconds=report.timings.generate)

    async def metrics(self) -> str:
        """Prometheus' text."""
        return self._metrics.text(backed_off=bool(self._rollout.backed_off), jobs=self._jobs.counts())

    async def backed_off(self) -> str:
        """Why the candidate gets no traffic; empty while it does."""
        return self._rollout.backed_off

    async def start_job(self, order: Order) -> JobView | Denied:
        """Begin a job."""
        return self._jobs.start(order)

    async def job(self, job_id: str, owner: str) -> JobView | None:
        """How a job stands."""
        return self._jobs.view(job_id, owner)

    async def job_audio(self, job_id: str, owner: str, index: int) -> JobAudio | None:
        """A clip of a finished job."""
        return self._jobs.audio(job_id, owner, index)

    async def job_events(self, job_id: str, owner: str) -> AsyncIterator[JobView]:
        """A job as it changes."""
        async for view in self._jobs.events(job_id, owner):
            yield view

    async def remove_job(self, job_id: str, owner: str) -> bool:
        """Cancel or forget a job."""
        return await self._jobs.remove(job_id, owner)
