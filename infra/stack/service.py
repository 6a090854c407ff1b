"""One process that is kept: how it is started, when it is ready, how it ends."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


def nothing() -> None:
    """What most services need before and after."""


@dataclass(frozen=True)
class Service:
    """A process and what belongs to it.

    Attributes:
        name: of its log and its record.
        command: what is run; no secret is in it.
        ready: whether it does its work by now; quick, and asked again and again.
        environment: all of its environment, secrets included.
        address: where it is found, for people.
        prepare: done before it is started; safe to repeat.
        settle: done once it is ready; safe to repeat, and repeated if it broke off.
        as_user: keyword arguments of Popen by which it runs as another user.
        end_with: the signal on which it ends in order.
        patience: seconds until it must be ready: many, for a busy machine; one that ends is noticed at once.
        grace: seconds it may take to end in order; what is left then is killed.
        ended: done once its process has ended, for what that may have left running.
    """

    name: str
    command: tuple[str, ...]
    ready: Callable[[], bool]
    environment: Mapping[str, str] = field(repr=False)
    address: str = ""
    prepare: Callable[[], None] = nothing
    settle: Callable[[], None] = nothing
    as_user: Mapping[str, Any] = field(default_factory=dict)
    end_with: signal.Signals = signal.SIGTERM
    patience: float = 900.0
    grace: float = 20.0
    ended: Callable[[], None] = nothing
