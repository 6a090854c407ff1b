"""From a checked request to finished audio: who asks, which model, admission, generation, encoding, the report.

Every route of the ingress goes through here, whatever its body is shaped like.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any

from fastapi import Request

from serving import errors
from serving.doorkeeper import REFUSED
from serving.errors import ApiError, invalid
from serving.guard import request_id
from serving.keys import ANYONE, Key, KeyRing
from serving.peers import CoordinatorPeer, GeneratorPeer
from serving.schema import MAX_SEED, EditRequest, GenerationRequest
from serving.work import (
    SLOTS,
    Admission,
    Clip,
    Denied,
    Failed,
    Info,
    Loaded,
    Made,
    Report,
    Slot,
    Sound,
    Ticket,
    Timings,
    Work,
)
from sonarc.audio import Refused
from sonarc.contracts.config import ServeConfig
from sonarc.runtime import wave
from sonarc.runtime.sound import decode_sound

log = logging.getLogger(__name__)

PIN = "x-sonarc-pin"
INFO_TIMEOUT_S = 10.0
INFO_AGE_S = 1.0
"""What is loaded is asked for anew after this, seconds."""
REPORTS_S = 0.25
"""How long reports are gathered before the coordinator is told, seconds: a call takes it as long as all of them."""
GRACE_S = 0.5
"""How much longer than a work's own deadline an ingress waits for word of it, seconds."""
UPLOAD_CLIPS = 20
"""Lengths of the longest clip that an uploaded sound may have."""


@dataclass(frozen=True)
class Delivery:
    """Finished audio of one request."""

    request_id: str
    work: Work
    made: Made
    media_type: str
    files: tuple[bytes, ...]
    timings: Timings

    @property
    def seconds(self) -> tuple[float, ...]:
        """Length of each clip."""
        return tuple(clip_AS.shape[1] / self.made.sample_rate for clip_AS in self.made.audio)


@dataclass
class Exchange:
    """What is known of a request while it is answered."""

    request: Request
    route: str
    key: Key = ANYONE
    pinned: bool = False
    begun: float = field(default_factory=time.monotonic)
    report: Report = field(default_factory=lambda: Report("", 200))

    @property
    def id(self) -> str:
        """The request's id."""
        return request_id(self.request.scope)

    def hand_over_lease(self) -> int:
        """The limiter's lease, from now on somebody else's to give back."""
        lease, self.report = self.report.lease, replace(self.report, lease=0)
        return lease

    def reported(self, status: int) -> Report:
        """The report with another status."""
        return replace(self.report, status=status)


class Service:
    """One ingress's work.

    Args:
        config: how to serve.
        generators: what makes clips.
        coordinator: what all ingresses share.
        keys: who may ask.
    """

    def __init__(
        self, config: ServeConfig, generators: GeneratorPeer, coordinator: CoordinatorPeer, keys: KeyRing
    ) -> None:
        self.config, self.generators, self.coordinator, self._keys = config, generators, coordinator, keys
        self._known: tuple[Info, float] | None = None
        self._background: set[asyncio.Task[Any]] = set()
        self._untold: list[Report] = []

    def identify(self, request: Request) -> Key:
        """Whose request it is.

        Raises:
            ApiError: 401.
        """
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        presented = token.strip() if scheme.lower() == "bearer" else ""
        for name in ("x-api-key", "xi-api-key"):  # the second is ElevenLabs'
            presented = presented or request.headers.get(name, "")
        return self._keys.identify(presented)

    @contextlib.asynccontextmanager
    async def exchange(self, request: Request, route: str) -> AsyncIterator[Exchange]:
        """Around the answer to a request: identifies the key, and reports how it went."""
        exchange = Exchange(request, route)
        refused = request.headers.get(REFUSED, "")
        exchange.report = replace(exchange.report, route=route, refused=int(refused[:9]) if refused.isdecimal() else 0)
        try:
            exchange.key = self.identify(request)
            yield exchange
        except ApiError as error:
            exchange.report = replace(exchange.report, status=error.status, code=error.code)
            raise
        except asyncio.CancelledError:
            exchange.report = replace(exchange.report, status=499, code="client_gone")
            raise
        except Exception:
            exchange.report = replace(exchange.report, status=500, code="internal")
            raise
        finally:
            report = exchange.report
            took_ms = 1_000 * (time.monotonic() - exchange.begun)
            said = (exchange.id, route, report.status, report.code or "ok", took_ms, exchange.key.id)
            log.info("request %s %s %d %s %.0f ms key %s", *said)
            self._tell(report)

    async def info(self) -> Info:
        """What is loaded, as of a moment ago.

        Raises:
            ApiError: 503 while nothing is.
        """
        if self._known is not None and time.monotonic() - self._known[1] < INFO_AGE_S:
            return self._known[0]
        try:
            async with asyncio.timeout(INFO_TIMEOUT_S):
                info = await self.generators.info()
        except TimeoutError as error:
            raise errors.not_ready() from error
        if info is None:
            raise errors.not_ready()
        self._known = info, time.monotonic()
        return info

    async def metrics(self) -> str:
        """Prometheus' text, this ingress's latest requests among it."""
        await self._tell_untold()
        return await self.coordinator.metrics()

    def pinned(self, asked: GenerationRequest, request: Request, info: Info) -> Slot | None:
        """The package a request insists on; None: whatever the server routes to.

        Raises:
            ApiError: 404 for one that is not loaded.
        """
        named = [name for name in (asked.model, request.headers.get(PIN)) if name]
        wanted: Slot | None = None
        for name in named:
            if name == info.champion.served.model:
                continue
            slot = next((slot for slot in SLOTS if name in _names(slot, info.slot(slot))), None)
            if slot is None or wanted not in (None, slot):
                raise errors.model_not_found()
            wanted = slot
        return wanted

    async def work(self, asked: GenerationRequest, exchange: Exchange, audio: bytes | None = None) -> Work:
        """What a generator is told of a request; admitted, and routed to a package.

        Raises:
            ApiError: a value the model does not allow, an unknown model, or a limit of the key.
        """
        info = await self.info()
        slot = self.pinned(asked, exchange.request, info)
        exchange.pinned = slot is not None
        loaded = info.slot(slot or "champion")
        assert loaded is not None
        self._check(asked, loaded)
        clips = _clips(asked, loaded)
        sound = None
        if audio is not None:
            assert isinstance(asked, EditRequest)
            sound = await asyncio.to_thread(_sound, audio, asked, loaded)
        if self.config.log_prompts:
            log.info("request %s prompts %r", exchange.id, asked.prompts)
        admission = await self._admit(exchange.key, clips, pinned=exchange.pinned, info=info)
        exchange.report = replace(exchange.report, lease=admission.lease)
        work = Work(
            clips=clips,
            steps=asked.steps or self.config.steps,
            slot=slot or admission.slot,
            timeout_s=self.config.timeout_s,
            guidance=1.0 if asked.guidance is None else asked.guidance,
            negative_prompt=asked.negative_prompt or "",
            sound=sound,
        )
        if admission.shadow:
            self._later(self._shadow(replace(work, slot="candidate", spare=True)))
        return work

    async def deliver(self, asked: GenerationRequest, exchange: Exchange, audio: bytes | None = None) -> Delivery:
        """Finished audio.

        Raises:
            ApiError: see `work`; 429, 503 and 504 as they come; 500 where the clip could not be made.
        """
        work = await self.work(asked, exchange, audio)
        admitted = time.monotonic()
        exchange.report = replace(exchange.report, slot=work.slot)
        made = await self._unless_gone(exchange.request, self._make(work, exchange))
        encoding = time.monotonic()
        files = await asyncio.gather(
            *(
                asyncio.to_thread(wave.encode_audio, clip_AS, made.sample_rate, asked.response_format)
                for clip_AS in made.audio
            )
        )
        now = time.monotonic()
        timings = Timings(
            admit=admitted - exchange.begun,
            queue=made.queue_s,
            generate=made.generate_s,
            encode=now - encoding,
            total=now - exchange.begun,
        )
        media = wave.FORMATS[asked.response_format]
        if asked.response_format == "pcm":
            media = f"{media};rate={made.sample_rate};channels={made.audio[0].shape[0]}"
        work = replace(work, slot=exchange.report.slot)
        delivery = Delivery(exchange.id, work, made, media, tuple(files), timings)
        exchange.report = replace(exchange.report, **_told(made, timings, sum(delivery.seconds)))
        return delivery

    async def _make(self, work: Work, exchange: Exchange) -> Made:
        outcome = await self._generate(work)
        if isinstance(outcome, Failed) and work.slot == "candidate" and not exchange.pinned:
            outcome = await self._fallen_back(work, outcome, exchange)
        if isinstance(outcome, Made):
            return outcome
        if outcome.problem:
            log.error("request %s could not be made: %s", exchange.id, outcome.problem)
        if outcome.reason == "queue_full":
            raise errors.too_busy(outcome.retry_after_s)
        if outcome.reason == "deadline":
            raise errors.timed_out(self.config.timeout_s)
        if outcome.reason == "absent":
            raise errors.not_ready()
        raise errors.internal()

    async def _fallen_back(self, work: Work, failed: Failed, exchange: Exchange) -> Made | Failed:
        """A canary request that the candidate broke is made by the champion; one that is pinned fails."""
        if failed.reason not in ("broken", "absent"):
            return failed
        self._tell(await self._candidate_report("canary", failed))
        exchange.report = replace(exchange.report, slot="champion")
        return await self._generate(replace(work, slot="champion"))

    async def _generate(self, work: Work) -> Made | Failed:
        try:
            async with asyncio.timeout(work.timeout_s + GRACE_S):
                outcome = await self.generators.make(work)
        except TimeoutError:
            return Failed("deadline")
        if isinstance(outcome, Made) and self._known is not None:
            loaded = self._known[0].slot(work.slot)
            if loaded is None or loaded.served != outcome.served:
                self._known = None  # another package was taken: ask again what it can do
        return outcome

    async def _shadow(self, work: Work) -> None:
        outcome = await self._generate(work)
        if isinstance(outcome, Made) or outcome.reason == "broken":
            self._tell(await self._candidate_report("shadow", outcome))

    async def _candidate_report(self, route: str, outcome: Made | Failed) -> Report:
        info = await self.info()
        sha256 = info.candidate.served.package_sha256 if info.candidate else ""
        if isinstance(outcome, Failed):
            return Report(route, 500, "internal", slot="candidate", package_sha256=sha256)
        timings = Timings(queue=outcome.queue_s, generate=outcome.generate_s)
        return Report(route, 200, slot="candidate", package_sha256=sha256, timings=timings)

    async def _admit(self, key: Key, clips: tuple[Clip, ...], *, pinned: bool, info: Info) -> Admission:
        config = self.config
        per_minute = config.requests_per_minute if key.requests_per_minute is None else key.requests_per_minute
        concurrent = config.concurrent_requests if key.concurrent_requests is None else key.concurrent_requests
        tried = info.candidate is not None and not pinned and (config.canary_share or config.shadow_share)
        if not (per_minute or concurrent or tried):
            return Admission()  # nothing to ask for: one hop less
        lease_s = config.timeout_s + config.upload_s
        ticket = Ticket(key.id, len(clips), per_minute, concurrent, lease_s, pinned)
        admission = await self.coordinator.admit(ticket)
        if isinstance(admission, Denied):
            raise errors.limited(admission.limit, admission.retry_after_s)
        return admission

    def _check(self, asked: GenerationRequest, loaded: Loaded) -> None:
        if asked.seconds is not None and asked.seconds > loaded.max_seconds:
            raise invalid(f"seconds must be at most {loaded.max_seconds:.3f}.", "seconds", "Ask for shorter audio.")
        if len(asked.prompts) * asked.n > self.config.max_clips:
            field = "n" if asked.n > 1 else "prompt"
            raise invalid(f"One request makes at most {self.config.max_clips} clips.", field, "Send several requests.")
        if not loaded.guided:
            if asked.guidance not in (None, 1.0):
                raise invalid("guidance must be 1: this model works without.", "guidance", "Leave it away.")
            if asked.negative_prompt is not None:
                raise invalid("negative_prompt is not for this model.", "negative_prompt", "Leave it away.")

    async def _unless_gone(self, request: Request, work: Coroutine[Any, Any, Made]) -> Made:
        """A work's outcome; the work is cancelled when the client closes the connection."""
        making = asyncio.ensure_future(work)
        leaving = asyncio.ensure_future(_gone(request))
        try:
            await asyncio.wait({making, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not making.done():
                raise errors.client_gone()
            return making.result()
        finally:
            making.cancel()
            leaving.cancel()

    def _tell(self, report: Report) -> None:
        """Tell the coordinator; one who holds a lease at once, the others together a moment later."""
        if report.lease:
            self._later(self.coordinator.settle((report,)))
            return
        self._untold.append(report)
        if len(self._untold) == 1:
            self._later(self._tell_all())

    async def _tell_all(self) -> None:
        await asyncio.sleep(REPORTS_S)
        await self._tell_untold()

    async def _tell_untold(self) -> None:
        reports, self._untold = self._untold, []
        if reports:
            await self.coordinator.settle(reports)

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        """Something the client need not wait for; that it failed is logged, and no more."""

        async def done() -> None:
            try:
                await work
            except Exception as error:
                log.warning("a report or shadow was lost: %s", type(error).__name__)

        task = asyncio.ensure_future(done())
        self._background.add(task)
        task.add_done_callback(self._background.discard)


def _names(slot: Slot, loaded: Loaded | None) -> tuple[str, ...]:
    if loaded is None:
        return ()
    served = loaded.served
    return (slot, served.version, f"{served.model}/{served.version}", f"{served.model}/{slot}", served.package_sha256)


def _clips(asked: GenerationRequest, loaded: Loaded) -> tuple[Clip, ...]:
    first = secrets.randbelow(MAX_SEED + 1) if asked.seed is None else asked.seed
    prompts = [prompt for prompt in asked.prompts for _ in range(asked.n)]
    length = loaded.max_seconds if asked.seconds is None else asked.seconds
    return tuple(Clip(prompt, length, (first + i) % (MAX_SEED + 1)) for i, prompt in enumerate(prompts))


def _sound(audio: bytes, asked: EditRequest, loaded: Loaded) -> Sound:
    most = round(UPLOAD_CLIPS * loaded.max_seconds * loaded.sample_rate) * loaded.channels
    try:
        audio_AS = decode_sound(audio, loaded.sample_rate, max_samples=most)
    except Refused as error:
        raise invalid(f"audio cannot be used: {error.reason}.", "audio", "Send a WAV, FLAC, OGG or MP3.") from error
    length = round(loaded.max_seconds * loaded.sample_rate)
    return Sound(audio_AS[:, :length], asked.noise, asked.keep)


def _told(made: Made, timings: Timings, audio_s: float) -> dict[str, Any]:
    return {
        "package_sha256": made.served.package_sha256,
        "timings": timings,
        "batch": made.batch,
        "waiting": made.waiting,
        "audio_s": audio_s,
    }


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
