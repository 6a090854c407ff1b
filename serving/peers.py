"""The two parties an ingress speaks to, as it sees them: through Serve handles, or directly in one process."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import TYPE_CHECKING, Protocol

from serving.work import Admission, Denied, Failed, Info, Made, Progress, Report, Ticket, Work

if TYPE_CHECKING:
    from serving.jobs import JobAudio, JobView, Order


class GeneratorPeer(Protocol):
    """Makes clips; `serving.engine.Engine`."""

    async def info(self) -> Info | None:
        """What is loaded."""

    async def make(self, work: Work) -> Made | Failed:
        """The clips of a work; cancelled, it frees its places."""

    def watch(self, work: Work) -> AsyncGenerator[Progress | Made | Failed]:
        """`make`, telling of the steps on the way."""


class CoordinatorPeer(Protocol):
    """What all ingresses share; `serving.coordinator.Coordinator`."""

    async def admit(self, ticket: Ticket) -> Admission | Denied:
        """Whether a key may, and which package answers."""

    async def settle(self, reports: Sequence[Report]) -> None:
        """What became of some requests."""

    async def metrics(self) -> str:
        """Prometheus' text."""

    async def backed_off(self) -> str:
        """Why the candidate gets no traffic; empty while it does."""

    async def start_job(self, order: Order) -> JobView | Denied:
        """Begin a job."""

    async def job(self, job_id: str, owner: str) -> JobView | None:
        """How a job stands."""

    async def job_audio(self, job_id: str, owner: str, index: int) -> JobAudio | None:
        """A clip of a finished job."""

    def job_events(self, job_id: str, owner: str) -> AsyncIterator[JobView]:
        """A job as it changes."""

    async def remove_job(self, job_id: str, owner: str) -> bool:
        """Cancel or forget a job."""
