"""Snake: `x + sin²(αx)/β`, the activation of audio decoders, as one pass over memory.

Source: *Neural Networks Fail to Learn Periodic Functions and How to Fix It*, arXiv 2006.08195.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

import torch
from torch import Tensor

log = logging.getLogger(__name__)

_SIN2 = (9.866676136766447, -32.35391695346847, 41.29533531967409, -22.991824416774197)
"""sin²(πr) = a·r² + b·r⁴ + c·r⁶ + d·r⁸ for |r| ≤ 1/2: minimax, wrong by 2.3e-5 at most, bfloat16 by 2e-3."""

Kernel = Callable[[Tensor, Tensor, Tensor], Tensor]


def _polynomial(x_SC: Tensor, rate_C: Tensor, weight_C: Tensor) -> Tensor:
    """Fifteen vector instructions, where a library's sine takes fifty; they pay only in one pass."""
    x = x_SC.float()
    turns = x * rate_C
    r = turns - torch.round(turns)
    r2 = r * r
    a, b, c, d = _SIN2
    return (x + r2 * (a + r2 * (b + r2 * (c + r2 * d))) * weight_C).to(x_SC.dtype)


def _passes(x_SC: Tensor, rate_C: Tensor, weight_C: Tensor) -> Tensor:
    """The same with a library's sine, in four passes over memory."""
    sine = torch.sin_(x_SC * (rate_C * math.pi).to(x_SC.dtype))
    return torch.addcmul(x_SC, sine.mul_(sine), weight_C.to(x_SC.dtype))


def snake_kernel(device: torch.device) -> Kernel:
    """The one-pass kernel, compiled at its first use on a machine; without a compiler for it, one of four passes."""
    compiled: Kernel = torch.compile(_polynomial, dynamic=True)
    try:
        with torch.inference_mode():
            for samples in (512, 768):  # the second length makes the first's kernel one for any
                factors = torch.ones(2, 128, device=device)
                compiled(torch.zeros(samples, 128, dtype=torch.bfloat16, device=device), *factors)
    except (RuntimeError, ImportError, OSError) as error:  # a compiler that is absent, or has nowhere to write
        log.warning(
            "no kernel could be compiled, so decoding takes up to twice as long: %s. Install a C++ compiler (g++)%s.",
            str(error).splitlines()[0] if str(error) else type(error).__name__,
            " and Triton" if device.type == "cuda" else "",
        )
        return _passes
    return compiled


class Snake:
    """One layer's activation.

    Args:
        alpha_C, beta_C: logarithms of α and β where `logarithmic`, as published.
        kernel: of `snake_kernel`.
    """

    def __init__(self, alpha_C: Tensor, beta_C: Tensor, kernel: Kernel, *, logarithmic: bool = True) -> None:
        alpha_C, beta_C = (x.detach().float().flatten() for x in (alpha_C, beta_C))
        if logarithmic:
            alpha_C, beta_C = alpha_C.exp(), beta_C.exp()
        self._rate_C, self._weight_C, self._kernel = alpha_C / math.pi, 1 / (beta_C + 1e-9), kernel

    def __call__(self, x_SC: Tensor) -> Tensor:
        """The activation of bfloat16 samples `(S, C)`."""
        return self._kernel(x_SC, self._rate_C, self._weight_C)
