"""Canary and shadow traffic: how much the candidate gets, and when it gets no more."""

from __future__ import annotations

import logging
import random
import statistics
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from serving.state import Lineup
from serving.work import Slot
from sonarc.contracts.config import ServeConfig

log = logging.getLogger(__name__)

WINDOW = 200
"""Requests of each package that are remembered."""


@dataclass
class _Record:
    failed: deque[bool] = field(default_factory=lambda: deque(maxlen=WINDOW))
    seconds: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))

    @property
    def errors(self) -> float:
        return sum(self.failed) / len(self.failed) if self.failed else 0.0


class Rollout:
    """Routes unpinned requests, and backs off when the candidate does worse than the champion.

    Args:
        config: shares and limits.
        draw: uniform numbers in [0, 1).
    """

    def __init__(self, config: ServeConfig, draw: Callable[[], float] = random.random) -> None:
        self._config, self._draw = config, draw
        self._lineup: Lineup | None = None
        self._records: dict[Slot, _Record] = {}
        self.backed_off = ""
        """Why the candidate gets no more traffic; empty while it does."""

    def present(self, lineup: Lineup) -> None:
        """Other packages are served: they are judged anew."""
        if lineup != self._lineup:
            self._lineup = lineup
            self._records = {"champion": _Record(), "candidate": _Record()}
            self.backed_off = ""

    @property
    def trying(self) -> bool:
        """Whether there is a candidate that gets traffic."""
        return self._lineup is not None and self._lineup.candidate is not None and not self.backed_off

    def route(self) -> tuple[Slot, bool]:
        """The package an unpinned request goes to, and whether the candidate makes it too."""
        if not self.trying:
            return "champion", False
        if self._draw() < self._config.canary_share:
            return "candidate", False
        return "champion", self._draw() < self._config.shadow_share

    def record(self, slot: Slot, package_sha256: str, *, failed: bool, seconds: float) -> None:
        """How a request went; one of a package that is no longer served does not count."""
        if self._lineup is None or slot not in self._records:
            return
        served = self._lineup.champion if slot == "champion" else self._lineup.candidate
        if served is None or package_sha256 not in ("", served.package_sha256):
            return
        record = self._records[slot]
        record.failed.append(failed)
        if not failed:
            record.seconds.append(seconds)
        if slot == "candidate" and self.trying:
            self._judge()

    def _judge(self) -> None:
        champion, candidate = self._records["champion"], self._records["candidate"]
        config = self._config
        if len(candidate.failed) < config.canary_min_requests:
            return
        if candidate.errors > champion.errors + config.canary_worse_errors:
            self.backed_off = f"it failed {candidate.errors:.0%} of its requests, the champion {champion.errors:.0%}"
        elif min(len(champion.seconds), len(candidate.seconds)) >= config.canary_min_requests:
            mine, theirs = statistics.median(candidate.seconds), statistics.median(champion.seconds)
            if mine > config.canary_slower * theirs:
                self.backed_off = f"it took {mine:.3f} s a batch, the champion {theirs:.3f} s"
        if self.backed_off:
            log.warning("The candidate gets no more traffic: %s.", self.backed_off)
