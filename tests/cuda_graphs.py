"""CUDA without a GPU: graphs that record and repeat operations, and devices of tensors that hold nothing.

What a graph does on a GPU is kept to the letter: it repeats the operations that were queued while it was captured, on
the same buffers, and nothing else that Python did then. What CUDA forbids while capturing fails here too.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from sonarc.samplers import sample

_READS = {"_local_scalar_dense", "nonzero", "is_nonzero", "equal", "item", "masked_select", "unique"}
"""Operations whose result the host needs before it can go on."""


class RecordedGraph:
    """Stands for `torch.cuda.CUDAGraph`."""

    def __init__(self) -> None:
        self.operations: list[tuple[Any, Sequence[Any], Mapping[str, Any], Any]] = []
        self.replays = 0

    def replay(self) -> None:
        self.replays += 1
        for function, args, kwargs, result in self.operations:
            again = function(*args, **kwargs)
            inputs = {_memory(t) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
            for old, new in zip(tree_leaves(result), tree_leaves(again), strict=True):
                if isinstance(old, Tensor) and _memory(old) not in inputs:
                    old.copy_(new)


class _Stream:
    """Stands for `torch.cuda.Stream`."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def wait_stream(self, other: _Stream) -> None:
        assert self.device == other.device


class _Capturing(TorchDispatchMode):
    """Stands for `torch.cuda.graph`."""

    def __init__(self, graph: RecordedGraph, **options: Any) -> None:
        super().__init__()
        self._graph = graph

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        if name in _READS:
            raise RuntimeError(f"operation not permitted when stream is capturing: {name}")
        result = func(*args, **kwargs)
        devices = {t.device for t in tree_leaves((args, kwargs, result)) if isinstance(t, Tensor) and t.ndim}
        if len(devices) > 1:
            raise RuntimeError(f"operation not permitted when stream is capturing: {name} between {devices}")
        self._graph.operations.append((func, args, kwargs, result))
        return result


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[RecordedGraph]:
    """Every graph that is made while the test runs."""
    made: list[RecordedGraph] = []

    class Listed(RecordedGraph):
        def __init__(self) -> None:
            super().__init__()
            made.append(self)

    for name, value in {
        "CUDAGraph": Listed,
        "graph": _Capturing,
        "Stream": _Stream,
        "current_stream": _Stream,
        "stream": lambda stream: nullcontext(),
        "device": lambda device: nullcontext(),
        "synchronize": lambda device=None: None,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    return made


@contextmanager
def pretended_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """A CUDA device whose tensors have shapes and no values: what mixes devices, or reads a value, fails."""
    from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

    class Valueless(FakeTensorMode):
        """Without the values that small constants otherwise keep."""

        def dispatch(self, *args: Any, **kwargs: Any) -> Any:
            result = super().dispatch(*args, **kwargs)
            for tensor in tree_leaves(result):
                if isinstance(tensor, FakeTensor):
                    tensor.constant = None
            return result

        def __deepcopy__(self, memo: Any) -> Any:
            return self  # a copied network's tensors are of the same kind

    def known(schedule: Any) -> Any:
        """Noise levels are the host's: they have values."""

        def levels(*args: Any, **kwargs: Any) -> Any:
            with _disable_current_modes():
                return np.array(schedule(*args, **kwargs).tolist(), np.float32)

        return levels

    for name in ("logsnr_schedule", "uniform_schedule"):
        monkeypatch.setattr(sample, name, known(getattr(sample, name)))
    # A build without CUDA lacks what switches between its devices: there is but one, and that of `meta` does nothing.
    registry = (ctypes.c_void_p * 16).in_dll(
        ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libc10.so")),
        "_ZN3c104impl26device_guard_impl_registryE",
    )
    cuda, meta = 1, 14  # places in c10's list of kinds of devices
    before = registry[cuda]
    registry[cuda] = before or registry[meta]
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *args, **kwargs: True)
    try:
        with Valueless():
            yield torch.device("cuda:0")
    finally:
        registry[cuda] = before


def _memory(tensor: Tensor) -> int:
    """What tensors that are views of each other share; packed weights have none."""
    return 0 if tensor.is_mkldnn else int(tensor.untyped_storage()._cdata)
