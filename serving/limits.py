"""Per-key limits: a token bucket for the rate, leases for what is under way. Kept in one place for all replicas."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from serving.work import Denied, Ticket


@dataclass
class _Bucket:
    tokens: float
    filled: float


class Limiter:
    """What each key has used.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[str, _Bucket] = {}
        self._leases: dict[int, tuple[str, float]] = {}
        self._next = itertools.count(1)

    def admit(self, ticket: Ticket) -> int | Denied:
        """A lease to be released (0 where nothing is limited), or why there is none.

        A lease that nobody releases, because its holder died, ends by itself after `ticket.lease_s`.
        """
        now = self._clock()
        if ticket.concurrent:
            self._leases = {lease: held for lease, held in self._leases.items() if held[1] > now}
            if sum(key == ticket.key_id for key, _ in self._leases.values()) >= ticket.concurrent:
                return Denied("concurrency")
        if ticket.per_minute and (wait_s := self._spend(ticket, now)):
            return Denied("rate", math.ceil(wait_s))
        if not ticket.concurrent:
            return 0
        lease = next(self._next)
        self._leases[lease] = (ticket.key_id, now + ticket.lease_s)
        return lease

    def release(self, lease: int) -> None:
        """Give a lease back; one that has ended already is fine."""
        self._leases.pop(lease, None)

    def _spend(self, ticket: Ticket, now: float) -> float:
        """Take a request's clips from its key's bucket; seconds until they would be there, where they are not."""
        rate, size = ticket.per_minute / 60, float(ticket.per_minute)
        bucket = self._buckets.setdefault(ticket.key_id, _Bucket(size, now))
        bucket.tokens = min(size, bucket.tokens + rate * (now - bucket.filled))
        bucket.filled = now
        cost = min(float(ticket.clips), size)
        if bucket.tokens < cost - 1e-9:
            return (cost - bucket.tokens) / rate
        bucket.tokens -= cost
        return 0.0
