"""The ARC loop body: two networks, two optimizers, one moving average, no Ray.

Per step a discriminator update and a generator update, each on its own batch, one optimizer step a batch.
For the first `generator_delay` steps only the discriminator learns. With an ODE warm-up, the generator alone learns
before all that, from the frozen base.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from sonarc.arc.discriminator import Discriminator, FeatureModel
from sonarc.arc.health import std_ratio, variety
from sonarc.arc.steps import (
    Alignment,
    ArcBatch,
    ArcDraws,
    Divisors,
    StepLoss,
    discriminator_step,
    frozen,
    generator_step,
)
from sonarc.arc.warmup import Trajectories, follow, warmup_step
from sonarc.checkpoint import load_optimizer, load_tensors, optimizer_tensors
from sonarc.contracts.config import ArcConfig
from sonarc.contracts.errors import CheckpointError, ModelInputError
from sonarc.training import EMA, adamw, clip_gradients, linear_warmup, set_rate
from sonarc.training.accumulation import add, cut, micro_batches, synchronized

Wrap = Callable[[nn.Module], nn.Module]
STATE = ("generator", "discriminator", "opt_g", "opt_d")
"""Parts of a training's state: the files under `state/` in its checkpoints."""


class ArcTrainer:
    """Generator, discriminator, their optimizers, and the generator's moving average.

    Args:
        base: the pre-trained velocity model, a `FeatureModel`; both networks start as copies of it.
        config: weights, rates, delays.
        seed: of the discriminator's head.
        wrap: moves a module to its device, and makes the backward pass average over workers; by default nothing.
        alignment: the loss that `config.clap_weight` weighs.
        workers: how many share a batch.
        micro_batch: clips in memory at once (`micro_batches`).

    Raises:
        ModelInputError: the base has no feature tap, or a weight of the alignment came without one.
    """

    def __init__(
        self,
        base: nn.Module,
        config: ArcConfig,
        *,
        seed: int = 0,
        wrap: Wrap = lambda module: module,
        alignment: Alignment | None = None,
        workers: int = 1,
        micro_batch: int | None = None,
    ) -> None:
        if not isinstance(base, FeatureModel):
            raise ModelInputError(
                f"{type(base).__name__} has no feature tap for a discriminator.", "Give it `features` and `trunk`."
            )
        if config.clap_weight and alignment is None:
            raise ModelInputError(
                f"arc.clap_weight is {config.clap_weight}, but no alignment was given.", "Give one, or set it to 0."
            )
        self.config, self._alignment, self._workers = config, alignment, workers
        self._micro_batches = micro_batches(config.batch, workers, micro_batch)
        self._teacher = wrap(copy.deepcopy(base).requires_grad_(False).eval()) if config.ode_warmup.steps else None
        self._trajectories: tuple[int, Trajectories] | None = None
        self.generator = copy.deepcopy(base).requires_grad_(True).train()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.discriminator = Discriminator(base, config.discriminator_depth, config.head)
        self._generator, self._discriminator = wrap(self.generator), wrap(self.discriminator)
        self._device = next(self.generator.parameters()).device
        self.optimizer_g = adamw(
            self.generator, lr=config.lr_generator, betas=config.betas, weight_decay=config.weight_decay
        )
        self.optimizer_d = adamw(
            self.discriminator, lr=config.lr_discriminator, betas=config.betas, weight_decay=config.weight_decay
        )
        self.ema = EMA(self.generator, config.ema)

    def step(self, step: int, batches: tuple[ArcBatch, ArcBatch], draws: tuple[ArcDraws, ArcDraws]) -> dict[str, float]:
        """Step number `step` (from 0): one discriminator update, then one generator update.

        Args:
            batches: the discriminator's and the generator's, different clips.
            draws: the discriminator's and the generator's.

        Returns:
            The step's figures; a generator that still waits reports none of its own.

        Raises:
            DivergedError: a gradient is not finite; no optimizer has stepped on it.
        """
        config = self.config
        batch_d, batch_g = (batch.to(self._device) for batch in batches)
        draws_d, draws_g = (drawn.to(self._device) for drawn in draws)
        if self._teacher is not None and step < config.ode_warmup.steps:
            return self._warm_up(self._teacher, step, batch_g, draws_g)
        self._teacher = self._trajectories = None  # its memory is of better use now
        step -= config.ode_warmup.steps
        scale = linear_warmup(step, config.warmup_steps)
        metrics = self._teach_discriminator(batch_d, draws_d, scale * config.lr_discriminator)
        if step >= config.generator_delay:
            metrics = self._teach_generator(batch_g, draws_g, scale * config.lr_generator) | metrics
            self.ema.update(config.ode_warmup.steps + step - config.generator_delay + 1)
        return metrics

    # The side that does not learn is called unwrapped: its part builds no graph for DDP to wait for.

    def _teach_discriminator(self, batch: ArcBatch, draws: ArcDraws, rate: float) -> dict[str, float]:
        divisors, fakes = self._divisors(batch), list[Tensor]()

        def loss(items: slice) -> StepLoss:
            part, drawn = batch.part(items), draws.part(items)
            found = discriminator_step(self.generator, self._discriminator, part, drawn, self.config, divisors)
            fakes.append(found.fake_BCT)
            return found

        metrics = self._accumulate(loss, batch, self._discriminator, self.optimizer_d)
        metrics["grad_norm_d"] = self._optimize(self.discriminator, self.optimizer_d, rate)
        fake_BCT, real = torch.cat(fakes), batch.real
        metrics["std_ratio"] = float(std_ratio(fake_BCT, real.x0_BCT, real.mask_BT))
        metrics["variety"] = float(variety(fake_BCT, real.x0_BCT, real.mask_BT))
        return metrics

    def _teach_generator(self, batch: ArcBatch, draws: ArcDraws, rate: float) -> dict[str, float]:
        divisors = self._divisors(batch)

        def loss(items: slice) -> StepLoss:
            part, drawn = batch.part(items), draws.part(items)
            return generator_step(
                self._generator, self.discriminator, part, drawn, self.config, self._alignment, divisors
            )

        with frozen(self.discriminator):  # until after the backward pass, which may recompute its activations
            metrics = self._accumulate(loss, batch, self._generator, self.optimizer_g)
        metrics["grad_norm_g"] = self._optimize(self.generator, self.optimizer_g, rate)
        return metrics

    def _warm_up(self, teacher: nn.Module, step: int, batch: ArcBatch, draws: ArcDraws) -> dict[str, float]:
        """A step of the ODE warm-up. Batch and noise stay the same for `refresh` steps, and so do trajectories."""
        config, ode = self.config, self.config.ode_warmup
        number, turn = divmod(step, ode.refresh)
        if self._trajectories is None or self._trajectories[0] != number:
            made = [follow(teacher, batch.part(p), draws.noise_BCT[p], ode) for p in self._pieces(batch)]
            self._trajectories = (number, Trajectories.joined(made))
        found, frames = self._trajectories[1], batch.whole.mask_GT.sum() / self._workers
        # A clip's level s, of no other use here, chooses its first point; the others follow evenly spread.
        first_B, stride = (draws.s_B * ode.sampling_steps).long(), max(1, ode.sampling_steps // ode.refresh)
        point_B = (first_B + turn * stride) % ode.sampling_steps

        def loss(items: slice) -> StepLoss:
            return warmup_step(self._generator, batch.part(items), found.part(items), point_B[items], frames=frames)

        metrics = self._accumulate(loss, batch, self._generator, self.optimizer_g)
        metrics["grad_norm_g"] = self._optimize(self.generator, self.optimizer_g, config.lr_generator)
        self.ema.update(step + 1)
        return metrics

    def state(self) -> dict[str, dict[str, Tensor]]:
        """The training state of a checkpoint; the averaged weights are the checkpoint's model itself."""
        return {
            "generator": self.generator.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "opt_g": optimizer_tensors(self.optimizer_g, _names(self.generator)),
            "opt_d": optimizer_tensors(self.optimizer_d, _names(self.discriminator)),
        }

    def load(self, averaged: Mapping[str, Tensor], state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Go on from a checkpoint's model and state.

        Raises:
            CheckpointError: a part is missing or does not fit.
        """
        if missing := [name for name in STATE if name not in state]:
            raise CheckpointError(f"The checkpoint lacks the state {missing}.", "Start afresh.")
        load_tensors(self.generator, state["generator"], what="generator")
        load_tensors(self.discriminator, state["discriminator"], what="discriminator")
        load_optimizer(self.optimizer_g, _names(self.generator), state["opt_g"])
        load_optimizer(self.optimizer_d, _names(self.discriminator), state["opt_d"])
        self.ema.load(averaged)

    def _divisors(self, batch: ArcBatch) -> Divisors:
        whole = batch.whole
        return Divisors.of(whole, self.discriminator.weights(whole.mask_GT), self._workers)

    def _pieces(self, batch: ArcBatch) -> Sequence[slice]:
        return cut(len(batch), self._micro_batches)

    def _accumulate(
        self,
        loss: Callable[[slice], StepLoss],
        batch: ArcBatch,
        wrapped: nn.Module,
        optimizer: torch.optim.Optimizer,
    ) -> dict[str, float]:
        """Leave the whole batch's gradients on `wrapped`, micro batch by micro batch; returns `loss` and figures."""
        optimizer.zero_grad(set_to_none=True)
        pieces, total = self._pieces(batch), dict[str, Tensor]()
        for piece in pieces:
            with synchronized(wrapped, last=piece is pieces[-1]):
                found = loss(piece)
                found.loss.backward()  # type: ignore[no-untyped-call]
            add(total, {"loss": found.loss.detach(), **found.metrics})
        return {name: float(value) for name, value in total.items()}

    def _optimize(self, module: nn.Module, optimizer: torch.optim.Optimizer, rate: float) -> float:
        """Clip and step; returns the gradient's norm before."""
        norm = clip_gradients(module.parameters(), self.config.grad_clip)
        set_rate(optimizer, rate)
        optimizer.step()
        return norm


def _names(module: nn.Module) -> list[str]:
    return [name for name, _ in module.named_parameters()]
