"""Pre-training of a velocity model by rectified flow: batches, one step's loss, one optimizer update. No Ray.

Shapes: B clips of this worker, G clips of the whole batch, C latent channels, T latent frames.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from sonarc.checkpoint.state import load_optimizer, load_tensors, optimizer_tensors
from sonarc.contracts.config import PretrainConfig
from sonarc.contracts.errors import CheckpointError
from sonarc.data import BatchPlan, LatentSet
from sonarc.dit.conditioning import Conditioning
from sonarc.flow import interpolate, sample_noise_levels, velocity_loss, velocity_target
from sonarc.text import TextEncoder
from sonarc.text.encoder import REMEMBERED
from sonarc.training.accumulation import cut, micro_batches, synchronized
from sonarc.training.batch import LatentBatch, frame_mask
from sonarc.training.draws import step_generator
from sonarc.training.ema import EMA
from sonarc.training.optimizer import adamw, clip_gradients, cosine, set_rate
from sonarc.training.precision import autocast

Wrap = Callable[[nn.Module], nn.Module]
READ_AT_ONCE = 256
"""Captions handed to the text encoder at once when reading ahead."""


@dataclass(frozen=True)
class StepDraws:
    """The random part of one step: noise, noise levels, prompts to drop. Drawn for the whole batch, then cut."""

    noise_BCT: Tensor
    t_B: Tensor
    drop_B: Tensor

    def part(self, items: slice) -> StepDraws:
        """One worker's part."""
        return StepDraws(self.noise_BCT[items], self.t_B[items], self.drop_B[items])

    def to(self, device: torch.device | str) -> StepDraws:
        """The same draws on another device."""
        return StepDraws(self.noise_BCT.to(device), self.t_B.to(device), self.drop_B.to(device))


def draw_step(config: PretrainConfig, step: int, shape: tuple[int, int, int]) -> StepDraws:
    """The draws of a step: a pure function of (seed, step), whatever the number of workers.

    Args:
        config: noise distribution, dropout and seed.
        step: global step.
        shape: (G, C, T) of the whole batch.
    """
    generator = step_generator(config.seed, step, "pretrain")
    return StepDraws(
        noise_BCT=torch.randn(shape, generator=generator),
        t_B=sample_noise_levels(config.noise, shape[0], generator),
        drop_B=torch.rand(shape[0], generator=generator) < config.cfg_dropout,
    )


def pretrain_loss(model: nn.Module, batch: LatentBatch, draws: StepDraws, *, frames: float | None = None) -> Tensor:
    """`‖(ε − x0) − v_θ(x_t, t, c)‖²` over true frames, with some prompts dropped.

    Args:
        model: a velocity model, `(x_BCT, t_B, cond, mask_BT=…) → v_BCT`.
        batch: this worker's clips.
        draws: this worker's draws.
        frames: see `velocity_loss`.
    """
    x_BCT = interpolate(batch.x0_BCT, draws.noise_BCT, draws.t_B)
    cond = batch.cond.with_text(batch.cond.text.dropped(draws.drop_B))
    with autocast(x_BCT.device):
        predicted_BCT = model(x_BCT, draws.t_B, cond, mask_BT=batch.mask_BT)
    return velocity_loss(predicted_BCT, velocity_target(batch.x0_BCT, draws.noise_BCT), batch.mask_BT, frames=frames)


@dataclass(frozen=True)
class PretrainStep:
    """What one update reads: this worker's clips and draws, and the whole batch's true frames."""

    batch: LatentBatch
    draws: StepDraws
    frames: int

    def part(self, items: slice) -> PretrainStep:
        """Some of its clips, of the same whole batch."""
        return PretrainStep(self.batch[items], self.draws.part(items), self.frames)


class PretrainBatches:
    """The batches of a training, each a pure function of (seed, step).

    Args:
        latents: the train split.
        encoder: reads the captions.
        config: batch size, noise, dropout and seed.
        patch: latent frames a token; true lengths are rounded up to it.

    Raises:
        DataError: latents that are not finite.
    """

    def __init__(self, latents: LatentSet, encoder: TextEncoder, config: PretrainConfig, patch: int) -> None:
        latents.check_finite()
        self._latents, self._encoder, self._config, self._patch = latents, encoder, config, patch
        self._plan = BatchPlan(latents.weights_N, config.batch, config.seed)
        read_ahead(encoder, latents)

    def at(self, step: int, part: slice | None = None) -> PretrainStep:
        """One worker's `part` of the batch of a step; None: all of it."""
        latents, items_B = self._latents, self._plan.items(step)
        part = part or slice(None)
        length = latents.latents_NCT.shape[2]
        frames_B = torch.from_numpy(np.minimum(-(-latents.frames_N[items_B] // self._patch) * self._patch, length))
        mine_B = items_B[part]
        captions = [latents.captions[n][self._plan.caption(step, int(n), len(latents.captions[n]))] for n in mine_B]
        batch = LatentBatch(
            x0_BCT=torch.from_numpy(latents.latents_NCT[mine_B].astype(np.float32)),
            mask_BT=frame_mask(frames_B[part], length),
            cond=Conditioning(self._encoder(captions), torch.from_numpy(latents.seconds_N[mine_B])),
        )
        shape = (len(items_B), latents.latents_NCT.shape[1], length)
        return PretrainStep(batch, draw_step(self._config, step, shape).part(part), int(frames_B.sum()))


def read_ahead(encoder: TextEncoder, latents: LatentSet) -> None:
    """Have the encoder read every caption once, in one fixed order, and remember it.

    An encoder rounds a prompt differently in other company. Read ahead, a resumed training sees bit for bit the
    states of an undisturbed one. Captions too many to remember are read when they are drawn.
    """
    captions = sorted({caption for several in latents.captions for caption in several}, key=lambda c: (len(c), c))
    if len(captions) <= REMEMBERED:
        for start in range(0, len(captions), READ_AT_ONCE):
            encoder(captions[start : start + READ_AT_ONCE])


class Pretrainer:
    """The model with its optimizer and moving average: the state that a checkpoint holds.

    Args:
        model: the velocity model.
        config: rates, clipping, moving average.
        wrap: moves it to its device, and makes the backward pass average over workers; by default nothing.
        workers: how many share a batch.
        micro_batch: clips in memory at once (`micro_batches`).
    """

    def __init__(
        self,
        model: nn.Module,
        config: PretrainConfig,
        *,
        wrap: Wrap = lambda module: module,
        workers: int = 1,
        micro_batch: int | None = None,
    ) -> None:
        self.model, self.config = model, config
        self._wrapped, self._workers = wrap(model), workers
        self._micro_batches = micro_batches(config.batch, workers, micro_batch)
        self._names = [name for name, _ in model.named_parameters()]
        self.optimizer = adamw(model, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay)
        self.ema = EMA(model, config.ema)
        self._device = next(model.parameters()).device

    def update(self, step: int, given: PretrainStep) -> dict[str, float]:
        """The optimizer update that follows `step` finished ones.

        Returns:
            `loss` (this worker's share: their mean over workers is the batch's loss), `grad_norm`, `lr`.

        Raises:
            DivergedError: the gradient is not finite; the weights are untouched.
        """
        config = self.config
        rate = config.lr * cosine(step, config.steps, config.warmup_steps)
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._backward(given)
        norm = clip_gradients(self.model.parameters(), config.grad_clip)
        set_rate(self.optimizer, rate)
        self.optimizer.step()
        self.ema.update(step + 1)
        return {"loss": loss, "grad_norm": norm, "lr": rate}

    def _backward(self, given: PretrainStep) -> float:
        """Leave the whole batch's gradients, micro batch by micro batch; returns this worker's share of the loss."""
        total, pieces = 0.0, cut(len(given.batch), self._micro_batches)
        for piece in pieces:
            micro = given.part(piece)
            with synchronized(self._wrapped, last=piece is pieces[-1]):
                loss = pretrain_loss(
                    self._wrapped,
                    micro.batch.to(self._device),
                    micro.draws.to(self._device),
                    frames=given.frames / self._workers,
                )
                loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        return total

    def state(self) -> dict[str, dict[str, Tensor]]:
        """The training state of a checkpoint; the averaged weights are the checkpoint's model itself."""
        return {"model": self.model.state_dict(), "opt": optimizer_tensors(self.optimizer, self._names)}

    def load(self, averaged: Mapping[str, Tensor], state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Go on from a checkpoint's model and state.

        Raises:
            CheckpointError: a part is missing or does not fit.
        """
        if missing := {"model", "opt"} - state.keys():
            raise CheckpointError(f"The checkpoint lacks the state {sorted(missing)}.", "Start afresh.")
        load_tensors(self.model, state["model"])
        load_optimizer(self.optimizer, self._names, state["opt"])
        self.ema.load(averaged)
