"""Long work that nobody holds a connection for: started, looked at, followed, cancelled; kept for a while."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import secrets
import time
import traceback
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Literal

from serving.errors import RETRY_AFTER_S, ApiError
from serving.peers import GeneratorPeer
from serving.work import Denied, Failed, Made, Progress, Work
from sonarc.contracts.config import ServeConfig
from sonarc.runtime import wave

log = logging.getLogger(__name__)

Status = Literal["queued", "running", "succeeded", "failed", "cancelled"]
STATUSES: tuple[Status, ...] = ("queued", "running", "succeeded", "failed", "cancelled")
ENDED = STATUSES[2:]
MAX_KEPT_BYTES = 512 * 1024 * 1024
"""Audio kept of all finished jobs together; beyond it the oldest go."""


@dataclass(frozen=True)
class Order:
    """A job as it is asked for.

    Attributes:
        owner: id of the key; nobody else sees the job.
        idempotency_key: the client's name for it, or ''; the same name again is the same job.
        body_sha256: what came with that name.
        lease: of the limiter, given back when the job ends.
    """

    work: Work
    response_format: str
    owner: str
    idempotency_key: str
    body_sha256: str
    lease: int = 0


@dataclass(frozen=True)
class JobView:
    """How a job stands."""

    id: str
    status: Status
    created: str
    done: int
    total: int
    seeds: tuple[int, ...]
    seconds: tuple[float, ...]
    response_format: str
    model: str = ""
    package_sha256: str = ""
    error: str = ""
    """`timeout`, `too_busy` or `internal`; empty while nothing went wrong."""
    generate_s: float = 0.0


@dataclass(frozen=True)
class JobAudio:
    """One clip of a finished job."""

    data: bytes
    sample_rate: int
    channels: int
    response_format: str


@dataclass
class _Job:
    view: JobView
    order: Order
    audio: list[JobAudio] = field(default_factory=list)
    ended: float | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    def turn(self, **changes: object) -> None:
        self.view = replace(self.view, **changes)  # type: ignore[arg-type]
        self.changed.set()
        self.changed = asyncio.Event()


class Jobs:
    """All jobs of a server.

    Args:
        config: how many are kept, and how long.
        generators: what makes the clips.
        on_end: called with an order that has ended, or was not begun.
    """

    def __init__(
        self, config: ServeConfig, generators: GeneratorPeer, on_end: Callable[[Order], None] = lambda _: None
    ) -> None:
        self._config, self._generators, self._on_end = config, generators, on_end
        self._jobs: dict[str, _Job] = {}
        self._turns = asyncio.Semaphore(config.max_batch)

    def start(self, order: Order) -> JobView | Denied:
        """Begin a job, or find the one of the same idempotency key."""
        self._expire()
        if known := self._named(order):
            self._on_end(order)
            same = hmac.compare_digest(known.order.body_sha256, order.body_sha256)
            return known.view if same else Denied("idempotency")
        if len(self._jobs) >= self._config.max_jobs:
            self._on_end(order)
            return Denied("jobs", 10)
        clips = order.work.clips
        view = JobView(
            id=f"job-{secrets.token_hex(12)}",
            status="queued",
            created=datetime.now(UTC).isoformat(timespec="milliseconds"),
            done=0,
            total=order.work.steps,
            seeds=tuple(clip.seed for clip in clips),
            seconds=tuple(clip.seconds for clip in clips),
            response_format=order.response_format,
        )
        job = self._jobs[view.id] = _Job(view, order)
        job.task = asyncio.get_running_loop().create_task(self._run(job))
        return view

    def view(self, job_id: str, owner: str) -> JobView | None:
        """How a job stands; None for one that is not there, or another's."""
        self._expire()
        job = self._owned(job_id, owner)
        return job.view if job else None

    def audio(self, job_id: str, owner: str, index: int) -> JobAudio | None:
        """A clip of a finished job."""
        self._expire()
        job = self._owned(job_id, owner)
        return job.audio[index] if job and 0 <= index < len(job.audio) else None

    async def events(self, job_id: str, owner: str) -> AsyncIterator[JobView]:
        """The job as it stands, and again whenever that changes, until it has ended."""
        job = self._owned(job_id, owner)
        while job is not None:
            changed, view = job.changed, job.view
            yield view
            if view.status in ENDED:
                return
            await changed.wait()

    async def remove(self, job_id: str, owner: str) -> bool:
        """Cancel a job, or forget a finished one. False for one that is not there."""
        job = self._owned(job_id, owner)
        if job is None:
            return False
        if job.task is not None and not job.task.done():
            job.task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await job.task
        self._jobs.pop(job_id, None)
        return True

    def counts(self) -> dict[str, int]:
        """Status → jobs."""
        self._expire()
        return {status: sum(job.view.status == status for job in self._jobs.values()) for status in STATUSES}

    async def _run(self, job: _Job) -> None:
        ends = time.monotonic() + self._config.job_timeout_s
        try:
            async with asyncio.timeout(self._config.job_timeout_s), self._turns:
                outcome = await self._made(job, ends)
            await self._finish(job, outcome)
        except TimeoutError:
            job.turn(status="failed", error="timeout")
        except asyncio.CancelledError:
            job.turn(status="cancelled")
            raise
        except Exception as error:
            # Its kind and place, without what it says: that may hold the prompt.
            log.error(
                "job %s failed: %s\n%s", job.id, type(error).__name__, "".join(traceback.format_tb(error.__traceback__))
            )
            job.turn(status="failed", error="internal")
        finally:
            job.ended = time.monotonic()
            self._on_end(job.order)

    async def _made(self, job: _Job, ends: float) -> Made | Failed:
        """A full queue, and a generator that died, are waited for: that is what a job is for."""
        while True:
            work = replace(job.order.work, timeout_s=max(0.0, ends - time.monotonic()))
            try:
                event = await self._watched(job, work)
            except ApiError as error:
                log.warning("job %s is begun again: %s", job.view.id, error.code)
                await asyncio.sleep(RETRY_AFTER_S)
                continue
            if isinstance(event, Made) or event.reason != "queue_full":
                return event
            await asyncio.sleep(event.retry_after_s)

    async def _watched(self, job: _Job, work: Work) -> Made | Failed:
        async with contextlib.aclosing(self._generators.watch(work)) as events:
            async for event in events:
                if not isinstance(event, Progress):
                    return event
                job.turn(status="running", done=event.done, total=event.total)
        return Failed("broken")

    async def _finish(self, job: _Job, outcome: Made | Failed) -> None:
        if isinstance(outcome, Failed):
            job.turn(status="failed", error="timeout" if outcome.reason == "deadline" else "internal")
            return
        kind, rate = job.order.response_format, outcome.sample_rate
        for clip_AS in outcome.audio:
            data = await asyncio.to_thread(wave.encode_audio, clip_AS, rate, kind)
            job.audio.append(JobAudio(data, rate, clip_AS.shape[0], kind))
        job.turn(
            status="succeeded",
            done=job.view.total,
            seconds=tuple(clip_AS.shape[1] / rate for clip_AS in outcome.audio),
            model=f"{outcome.served.model}/{outcome.served.version}",
            package_sha256=outcome.served.package_sha256,
            generate_s=outcome.generate_s,
        )

    def _owned(self, job_id: str, owner: str) -> _Job | None:
        job = self._jobs.get(job_id)
        return job if job is not None and job.order.owner == owner else None

    def _named(self, order: Order) -> _Job | None:
        if not order.idempotency_key:
            return None
        wanted = (order.owner, order.idempotency_key)
        return next((j for j in self._jobs.values() if (j.order.owner, j.order.idempotency_key) == wanted), None)

    def _expire(self) -> None:
        now, kept = time.monotonic(), 0
        ended = [(job.ended, job_id) for job_id, job in self._jobs.items() if job.ended is not None]
        for when, job_id in sorted(ended, reverse=True):
            kept += sum(len(clip.data) for clip in self._jobs[job_id].audio)
            if now - when > self._config.job_ttl_s or kept > MAX_KEPT_BYTES:
                del self._jobs[job_id]
