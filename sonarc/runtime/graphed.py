"""The DiT and the codec on a GPU: the same work, launched as CUDA graphs.

A request of few steps that begins from noise, and that nobody wants to interrupt, is one graph from noise to latents.
Any other is a graph that prepares the conditioning, and one more that every evaluation of the network replays: between
two of them its caller may change his mind, and an edit bends the trajectory. Decoding is one graph.

Shapes: B batch, C latent channels, T latent frames, N draws of noise, L text tokens, E width of a token's state.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from sonarc.codec.interface import Codec
from sonarc.dit import Conditioning
from sonarc.runtime.captured import Captured, Graphs, Replay
from sonarc.runtime.decoding import OtherDecoding
from sonarc.runtime.fast_dit import FastDiT, Request
from sonarc.samplers import Kind, trajectory, with_cfg, without_cfg
from sonarc.text.encoder import TextStates

LONGEST = 64
"""Most steps of a trajectory that is captured whole: each adds some hundred kernels to its graph."""


class GraphedDiT:
    """Called as the `FastDiT` in it, or for whole trajectories at once.

    Args:
        model: the network, on a GPU.
        graphs: where captured work is kept.

    Attributes:
        config: the network's.
        device: where its weights lie, and its inputs must.
    """

    def __init__(self, model: FastDiT, graphs: Graphs) -> None:
        self._model, self._graphs = model, graphs
        self.config, self.device = model.config, model.device
        self._numbers = itertools.count()
        self._request: tuple[int, Conditioning, Tensor | None] | None = None

    def __call__(self, x_BCT: Tensor, t_B: Tensor, cond: Conditioning, *, mask_BT: Tensor | None = None) -> Tensor:
        """The velocity at `x_BCT`; see `FastDiT`. Samplers hand the same objects to every step of a request."""
        self._model.check(x_BCT, t_B, cond, mask_BT)
        request = self._request
        if request is None or request[1] is not cond or request[2] is not mask_BT:
            request = self._request = (next(self._numbers), cond, mask_BT)

        def eager(x_BCT: Tensor, t_B: Tensor, cond: Conditioning, mask_BT: Tensor | None) -> Tensor:
            return self._model(x_BCT, t_B, cond, mask_BT=mask_BT)

        return self._graphs.call(
            ("step", tuple(x_BCT.shape), cond.text.tokens_BLE.shape[1], mask_BT is not None),
            request[0],
            eager,
            lambda: _Steps(self._model, x_BCT, t_B, cond, mask_BT),
            x_BCT,
            t_B,
            cond,
            mask_BT,
        )

    @torch.inference_mode()
    def trajectory(
        self,
        kind: Kind,
        noise_NBCT: Tensor,
        cond: Conditioning,
        mask_BT: Tensor | None,
        *,
        steps: int,
        cfg: float = 1.0,
        negative: Conditioning | None = None,
    ) -> Tensor:
        """Latents `(B, C, T)`, as `sonarc.samplers.trajectory` of the guided or bare velocity gives them.

        Args:
            kind, steps: of the sampler; at most `LONGEST` steps.
            noise_NBCT: all draws that it asks for.
            cond: prompts and durations.
            mask_BT: True at true frames; None: all are.
            cfg: guidance scale; 1 is none.
            negative: what to move away from instead of the null text.
        """
        self._model.check(noise_NBCT[0], cond.seconds_B, cond, mask_BT)
        guided = cfg != 1
        arguments = [noise_NBCT, cond.text.tokens_BLE, cond.text.mask_BL, cond.seconds_B]
        if guided:
            away = (cond.null() if negative is None else negative).text
            arguments += [away.tokens_BLE, away.mask_BL, torch.full((), cfg, device=self.device)]
        if mask_BT is not None:
            arguments.append(mask_BT)
        work = _sampling(self._model, kind, steps, guided=guided)
        shape, tokens = tuple(noise_NBCT.shape[1:]), cond.text.tokens_BLE.shape[1]
        key = ("trajectory", kind, steps, guided, shape, tokens, mask_BT is not None)
        return self._graphs.call(key, next(self._numbers), work, lambda: Captured(work, *arguments), *arguments)


def _sampling(model: FastDiT, kind: Kind, steps: int, *, guided: bool) -> Callable[..., Tensor]:
    """A whole trajectory as a function of tensors."""

    def work(noise_NBCT: Tensor, tokens_BLE: Tensor, mask_BL: Tensor, seconds_B: Tensor, *more: Tensor) -> Tensor:
        # Made anew at every call: the model takes what it knows for its last request's.
        cond = Conditioning(TextStates(tokens_BLE, mask_BL), seconds_B)
        if guided:
            away_BLE, away_BL, scale, *more_ = more
            negative = Conditioning(TextStates(away_BLE, away_BL), seconds_B)
            velocity = with_cfg(model, cond, scale, negative=negative, mask_BT=more_[0] if more_ else None)
        else:
            velocity = without_cfg(model, cond, more[0] if more else None)
        return trajectory(kind, velocity, lambda draw: noise_NBCT[draw], steps=steps)

    return work


class _Steps:
    """One evaluation of the network, and what goes before the first of a request, as two graphs."""

    def __init__(self, model: FastDiT, x_BCT: Tensor, t_B: Tensor, cond: Conditioning, mask_BT: Tensor | None) -> None:
        frames = x_BCT.shape[2]

        def prepare(tokens_BLE: Tensor, mask_BL: Tensor, seconds_B: Tensor, *mask_BT: Tensor) -> Request:
            own = Conditioning(TextStates(tokens_BLE, mask_BL), seconds_B)
            return model.prepare(own, mask_BT[0] if mask_BT else None, frames)

        self._prepare = Captured(prepare, *_tensors(cond, mask_BT))
        request = self._prepare.result  # in the buffers that the other graph reads
        self._step = Captured(lambda x_BCT, t_B: model.step(x_BCT, t_B, request), x_BCT, t_B)
        self._asked: tuple[Conditioning, Tensor | None] | None = None

    def __call__(self, x_BCT: Tensor, t_B: Tensor, cond: Conditioning, mask_BT: Tensor | None) -> Tensor:
        if self._asked is None or self._asked[0] is not cond or self._asked[1] is not mask_BT:
            self._prepare(*_tensors(cond, mask_BT))
            self._asked = (cond, mask_BT)
        return self._step(x_BCT, t_B)


def _tensors(cond: Conditioning, mask_BT: Tensor | None) -> list[Tensor]:
    return [cond.text.tokens_BLE, cond.text.mask_BL, cond.seconds_B, *([] if mask_BT is None else [mask_BT])]


class GraphedCodec(OtherDecoding):
    """A `Codec` that decodes as another one, on a GPU, without a graph of autograd's.

    Args:
        codec: see `OtherDecoding`.
        graphs: where captured work is kept.
    """

    def __init__(self, codec: Codec, graphs: Graphs) -> None:
        super().__init__(codec)
        self._graphs = graphs
        self._numbers = itertools.count()

    @torch.inference_mode()
    def decode(self, z_BCT: Tensor) -> Tensor:
        """Audio `(B, A, T · hop)`. Errors as of the codec's own `decode`."""
        decode: Replay = self._codec.decode
        key = ("decode", tuple(z_BCT.shape))
        return self._graphs.call(key, next(self._numbers), decode, lambda: Captured(decode, z_BCT), z_BCT)
