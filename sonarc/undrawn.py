"""Networks whose weights are about to be replaced: drawing them first would cost seconds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_FILLING = {Tensor.zero_, Tensor.fill_}


class _NothingDrawn(TorchFunctionMode):
    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _FILLING or getattr(func, "__module__", "") == nn.init.__name__:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


@contextmanager
def undrawn() -> Iterator[None]:
    """Modules made in the `with` block have whatever their memory holds.

    The device `meta` would do as well, but its `randn` and `arange` import PyTorch's compiler, which takes seconds.
    """
    with _NothingDrawn():
        yield
