"""What the rooms of the server hand each other: work for a generator, and what comes of it. No ray, no torch.

Shapes: A audio channels, S samples.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from serving.state import ServedModel

Slot = Literal["champion", "candidate"]
SLOTS: tuple[Slot, ...] = ("champion", "candidate")


@dataclass(frozen=True)
class Clip:
    """One clip to make."""

    prompt: str
    seconds: float
    seed: int


@dataclass(frozen=True)
class Sound:
    """A sound that clips begin from; see `sonarc.runtime.edit.Edit`."""

    audio_AS: NDArray[np.float32]
    noise: float
    keep: tuple[float, float] | None


@dataclass(frozen=True)
class Work:
    """What one request asks of a generator.

    Attributes:
        clips: all of them, or none, are made.
        steps: network evaluations.
        slot: which of the loaded packages.
        timeout_s: seconds until nobody wants it any more.
        spare: made only while nothing else waits.
    """

    clips: tuple[Clip, ...]
    steps: int
    slot: Slot
    timeout_s: float
    guidance: float = 1.0
    negative_prompt: str = ""
    sound: Sound | None = None
    spare: bool = False


@dataclass(frozen=True)
class Made:
    """Finished clips.

    Attributes:
        audio: one array `(A, S)` a clip, in the order they were asked for.
        served: the package that made them.
        queue_s: longest wait of a clip, seconds.
        generate_s: longest time of a batch with one of the clips, seconds.
        batch: clips of the largest such batch.
        waiting: clips in the queue now.
    """

    audio: tuple[NDArray[np.float32], ...]
    sample_rate: int
    served: ServedModel
    queue_s: float
    generate_s: float
    batch: int
    waiting: int


@dataclass(frozen=True)
class Failed:
    """Why there are no clips.

    Attributes:
        reason: `queue_full`, `deadline`, `absent` (no package in that slot) or `broken`.
        retry_after_s: seconds after which it may be otherwise.
        problem: the error's class, for the log.
    """

    reason: Literal["queue_full", "deadline", "absent", "broken"]
    retry_after_s: int = 1
    problem: str = ""


@dataclass(frozen=True)
class Progress:
    """How far a work has come: steps done, of all."""

    done: int
    total: int


@dataclass(frozen=True)
class Loaded:
    """A package that is ready."""

    served: ServedModel
    sample_rate: int
    channels: int
    max_seconds: float
    guided: bool
    """Whether it is a base, which takes guidance and a negative prompt."""


@dataclass(frozen=True)
class Info:
    """What a generator holds."""

    champion: Loaded
    candidate: Loaded | None = None
    waiting: int = 0

    def slot(self, name: Slot) -> Loaded | None:
        """The package of a slot."""
        return self.champion if name == "champion" else self.candidate


@dataclass(frozen=True)
class Timings:
    """Where the time of a request went, seconds."""

    admit: float = 0.0
    queue: float = 0.0
    generate: float = 0.0
    encode: float = 0.0
    total: float = 0.0

    def seconds(self) -> dict[str, float]:
        """Phase → seconds."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True)
class Ticket:
    """What admission wants to know of a request."""

    key_id: str
    clips: int
    per_minute: int
    concurrent: int
    lease_s: float
    pinned: bool


@dataclass(frozen=True)
class Admission:
    """A request may go ahead.

    Attributes:
        lease: to be given back; 0: none was taken.
        slot: where an unpinned request goes.
        shadow: whether the candidate makes it too.
    """

    lease: int = 0
    slot: Slot = "champion"
    shadow: bool = False


@dataclass(frozen=True)
class Denied:
    """A key has used up what it may."""

    limit: Literal["rate", "concurrency", "jobs", "idempotency"]
    retry_after_s: int = 1


@dataclass(frozen=True)
class Report:
    """What became of a request: for limits, the rollout and the metrics.

    Attributes:
        route: the path's template.
        code: the error's code; empty for audio.
        audio_s: seconds of audio delivered.
        refused: requests to the same path that a proxy refused since its last one: the queue was full.
    """

    route: str
    status: int
    code: str = ""
    lease: int = 0
    slot: Slot = "champion"
    package_sha256: str = ""
    timings: Timings = field(default_factory=Timings)
    batch: int = 0
    waiting: int = 0
    audio_s: float = 0.0
    refused: int = 0
