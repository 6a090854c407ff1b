"""The log of a RayJob, followed while it runs: what its submitter pod prints, which is the Ray job's own log.

Reading a pod's log is a right of reading. Ray's dashboard could give the log too, but who reaches the dashboard may run
anything in the cluster, so components are kept from it.
"""

from __future__ import annotations

import logging
import math
import re
import sys
import threading
import time
from collections import deque
from datetime import datetime
from types import TracebackType
from typing import Any

from components.launch.backend import LOG_TAIL_LINES
from components.launch.kube import Kube, UnreachableError
from sonarc.contracts.errors import StageError

SILENCE_SECONDS = 60
"""A connection that has brought nothing for so long may be dead: the log is asked for anew."""
OVERLAP_SECONDS = 60
"""So much of what was read is asked for again after a break, for clocks that differ; lines are told by their times."""
PAUSE_SECONDS = 1.0
DRAIN_SECONDS = 15.0
"""Given to the rest of the log once the job has ended."""

Moment = tuple[int, int]
"""Seconds since 1970, and nanoseconds, of which a float would lose some."""
BEGINNING: Moment = (0, 0)
_STAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")

logger = logging.getLogger(__name__)


class PodLog:
    """Copies the log to standard output in a thread of its own, from `with` to its end; lines are written once."""

    def __init__(self, kube: Kube, rayjob: str) -> None:
        self._kube, self._rayjob = kube, rayjob
        self._tail: deque[str] = deque(maxlen=LOG_TAIL_LINES)
        self._ending, self._thread = threading.Event(), threading.Thread(target=self._copy, daemon=True)
        self._pod, self._last = "", BEGINNING
        """The pod that is read, and the time of the last line of it."""

    def __enter__(self) -> PodLog:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        self._thread.join(DRAIN_SECONDS if kind is None else 0)

    @property
    def tail(self) -> str:
        """The last lines so far."""
        return "\n".join(self._tail)

    def _copy(self) -> None:
        read: set[str] = set()
        until = math.inf
        while True:
            last_look, whole = self._ending.is_set(), False
            if last_look:
                until = min(until, time.monotonic() + DRAIN_SECONDS)
            try:
                for pod in self._begun():
                    uid = pod["metadata"]["uid"]
                    if uid not in read:
                        self._follow(pod["metadata"]["name"])
                        # A stream may end before its container does: only what had ended before is read to its end.
                        read |= {uid} if pod["status"]["phase"] in ("Succeeded", "Failed") else set()
                whole = True
            except (UnreachableError, LookupError) as error:
                logger.debug("the log broke off: %s", error)
            except StageError as error:
                logger.warning("The job's log is not shown here: %s", error)
                return
            if last_look and (whole or time.monotonic() > until):
                return
            self._ending.wait(0 if last_look else PAUSE_SECONDS)

    def _begun(self) -> list[dict[str, Any]]:
        """The submitter pods whose container has begun, the first one first: another follows one that was lost."""
        begun = [pod for pod in self._kube.pods({"job-name": self._rayjob}) if pod["status"]["phase"] != "Pending"]
        return sorted(begun, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))

    def _follow(self, pod: str) -> None:
        """Copy what a pod's log holds that was not copied yet, until the stream ends."""
        if pod != self._pod:
            if self._pod:
                self._write(f"[{self._pod} was replaced by {pod}; the log begins anew]")
            self._pod, self._last = pod, BEGINNING
        since = None if self._last == BEGINNING else max(1, math.ceil(time.time() - self._last[0]) + OVERLAP_SECONDS)
        for line in self._kube.log(self._pod, since, SILENCE_SECONDS):
            stamp, _, text = line.partition(" ")
            moment = moment_of(stamp)
            if moment is None:
                logger.debug("of the log it is said: %s", line)
            elif moment > self._last:
                self._last = moment
                self._write(text)

    def _write(self, text: str) -> None:
        self._tail.append(text)
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()


def moment_of(stamp: str) -> Moment | None:
    """An RFC 3339 time, in whichever zone the node's container runtime writes it; None: the kubelet's own words."""
    found = _STAMP.fullmatch(stamp)
    if found is None:
        return None
    seconds, fraction, zone = found.groups()
    return int(datetime.fromisoformat(seconds + zone).timestamp()), int((fraction or "").ljust(9, "0"))
