"""A crowd of clients for benchmarks: each asks, waits for the whole answer, and asks again. No ray here."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from dataclasses import dataclass, field
from typing import Any

import httpx

PATIENCE_S = 0.25
"""How long a client that was refused waits, seconds: less than it is told to, so that the overload lasts."""
_SUBJECTS = ("fiddle tune", "kick drum", "bell", "flute", "bass line", "piano chord", "snare roll", "pad")
_MANNERS = ("slow", "bright", "dark", "distant", "loud", "soft", "fast", "old")


@dataclass(frozen=True)
class Answer:
    """One answer as a client saw it.

    Attributes:
        status: HTTP status; 0 where the connection broke.
        seconds: from the request to the last byte.
        generate_s: of them, in the model.
        retryable: whether the refusal said when to come back.
        package: what made it.
    """

    status: int
    seconds: float
    generate_s: float = 0.0
    retryable: bool = False
    package: str = ""


@dataclass
class Crowd:
    """Clients of one endpoint.

    Args:
        address: `http://host:port`.
        body: fields of every request but prompt and seed.
    """

    address: str
    body: dict[str, Any]
    answers: list[Answer] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._numbers = itertools.count()

    async def ask(self, clients: int, seconds: float) -> list[Answer]:
        """`clients` of them for `seconds`; every request that was begun is ended."""
        ends = time.monotonic() + seconds
        begun = len(self.answers)
        await asyncio.gather(*(self._client(ends) for _ in range(clients)))
        return self.answers[begun:]

    async def _client(self, ends: float) -> None:
        await asyncio.sleep(random.random() * 0.05)
        # Each has a connection of its own: a pool looks through all its connections for every request, and of hundreds
        # it would be the pool that everybody waits for.
        async with httpx.AsyncClient(timeout=120.0, trust_env=False, verify=False) as client:
            while time.monotonic() < ends:
                answer = await self._once(client)
                self.answers.append(answer)
                if answer.status != 200:
                    await asyncio.sleep(PATIENCE_S)

    async def _once(self, client: httpx.AsyncClient) -> Answer:
        number = next(self._numbers)
        # Ever new prompts: what a server keeps of them must not grow for ever.
        prompt = f"a {_MANNERS[number % 8]} {_SUBJECTS[number // 8 % 8]}, take {number}"
        begun = time.monotonic()
        try:
            answer = await client.post(
                f"{self.address}/v1/audio/generations", json={**self.body, "prompt": prompt, "seed": number}
            )
        except httpx.HTTPError:
            return Answer(0, time.monotonic() - begun)
        return Answer(
            status=answer.status_code,
            seconds=time.monotonic() - begun,
            generate_s=float(answer.headers.get("x-sonarc-generate-seconds", 0)),
            retryable="retry-after" in answer.headers,
            package=answer.headers.get("x-sonarc-package", ""),
        )
