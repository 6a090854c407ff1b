"""Functions of tensors as CUDA graphs: launched whole, where a GPU would wait for Python to launch kernel after kernel.

A captured function reads its arguments from buffers of its own and leaves its result in one. It must read nothing back
from the device and copy nothing to it: `FastDiT`, the samplers and the decoders are written so.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

log = logging.getLogger(__name__)

LIMIT = 8
"""Graphs that are kept: each holds its own memory, as much as what it computes needs at once."""
REMEMBERED = 256
"""Shapes that were asked for once, and are captured when they come again."""

Replay = Callable[..., Tensor]
Result = TypeVar("Result")

_CAPTURING = threading.Lock()
"""One capture at a time in a process, whichever model it is of."""


class Captured(Generic[Result]):
    """A function of tensors, captured with some arguments and called again with others of the same shapes.

    Args:
        work: the function; what it does beyond queueing work of the device is not done again.
        arguments: tensors on a GPU.

    Attributes:
        result: what the function returned, in the buffers that every call fills anew.
    """

    def __init__(self, work: Callable[..., Result], *arguments: Tensor) -> None:
        # Kept as long as the graph: it reads them, and what `work` refers to, at the addresses they have now.
        self._work, self._own = work, tuple(argument.clone() for argument in arguments)
        self._graph = torch.cuda.CUDAGraph()
        device = arguments[0].device
        with torch.inference_mode(), torch.cuda.device(device), _CAPTURING:
            aside = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            now = torch.cuda.current_stream(device)
            aside.wait_stream(now)
            with torch.cuda.stream(aside):  # libraries choose their kernels and get their memory before, not within
                work(*self._own)
            now.wait_stream(aside)
            # Other threads may use the device meanwhile.
            with torch.cuda.graph(self._graph, stream=aside, capture_error_mode="thread_local"):
                self.result = work(*self._own)

    @torch.inference_mode()
    def __call__(self, *arguments: Tensor) -> Result:
        """`result`, of these arguments, until the next call."""
        for own, argument in zip(self._own, arguments, strict=True):
            own.copy_(argument, non_blocking=True)
        self._graph.replay()
        return self.result


class Graphs:
    """Captured functions by what distinguishes them, the most recently used ones.

    A function is captured when a second request needs it: a command that makes one sound does not wait for a capture.
    Where a capture fails, the log says why, and everything goes on without.

    Args:
        limit: how many are kept.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit, self._works = limit, True
        self._kept: OrderedDict[Hashable, Replay] = OrderedDict()
        self._seen: OrderedDict[Hashable, int] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def call(
        self, key: Hashable, request: int, eager: Replay, capture: Callable[[], Replay], *arguments: Any
    ) -> Tensor:
        """`eager(*arguments)`, or the same from what was captured.

        Args:
            key: equal keys are equal functions of arguments of equal shapes.
            request: its number.
            eager: the function.
            capture: gives what is called in its stead, whose result need not outlive the next call.
            arguments: of either.
        """
        with self._lock:
            replay = self._captured(key, request, capture)
            return eager(*arguments) if replay is None else replay(*arguments).clone()

    def _captured(self, key: Hashable, request: int, capture: Callable[[], Replay]) -> Replay | None:
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        if not self._works:
            return None
        if self._seen.setdefault(key, request) == request:
            while len(self._seen) > REMEMBERED:
                self._seen.popitem(last=False)
            return None
        while len(self._kept) >= self._limit:
            torch.cuda.synchronize()  # it may still be running
            self._seen.pop(self._kept.popitem(last=False)[0], None)
        try:
            self._kept[key] = capture()
        except RuntimeError as error:
            self._works = False
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            log.warning("no CUDA graph could be captured, so sounds take longer: %s.", reason)
            return None
        return self._kept[key]
