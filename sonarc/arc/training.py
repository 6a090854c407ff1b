"""The ARC loop body: two networks, two optimizers, one moving average, no Ray.

Per step a discriminator update and a generator update, each on its own batch, one optimizer step a batch.
For the first `generator_delay` steps only the discriminator learns. With an ODE warm-up, the generator alone learns
before all that, from the frozen base.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from sonarc.arc.discriminator import Discriminator, FeatureModel
from sonarc.arc.steps import Alignment, ArcBatch, ArcDraws, StepLoss, discriminator_step, frozen, generator_step
from sonarc.arc.warmup import Trajectories, follow, warmup_step
from sonarc.checkpoint import load_optimizer, load_tensors, optimizer_tensors
from sonarc.contracts.config import ArcConfig
from sonarc.contracts.errors import CheckpointError, ModelInputError
from sonarc.training import EMA, adamw, clip_gradients, linear_warmup, set_rate

Wrap = Callable[[nn.Module], nn.Module]
STATE = ("generator", "discriminator", "opt_g", "opt_d")
"""Parts of a training's state: the files under `state/` in its checkpoints."""


class ArcTrainer:
    """Generator, discriminator, their optimizers, and the generator's moving average.

    Args:
        base: the pre-trained velocity model, a `FeatureModel` on its device; both networks start as copies of it.
        config: weights, rates, delays.
        seed: of the discriminator's head.
        wrap: makes a module's backward pass average over workers (DDP); by default nothing.
        alignment: the loss that `config.clap_weight` weighs.

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
    ) -> None:
        if not isinstance(base, FeatureModel):
            raise ModelInputError(
                f"{type(base).__name__} has no feature tap for a discriminator.", "Give it `features` and `trunk`."
            )
        if config.clap_weight and alignment is None:
            raise ModelInputError(
                f"arc.clap_weight is {config.clap_weight}, but no alignment was given.", "Give one, or set it to 0."
            )
        self.config, self._alignment = config, alignment
        self._teacher = copy.deepcopy(base).requires_grad_(False).eval() if config.ode_warmup.steps else None
        self._trajectories: tuple[int, Trajectories] | None = None
        self.generator = copy.deepcopy(base).requires_grad_(True).train()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.discriminator = Discriminator(base, config.discriminator_depth, config.head)
        self._device = next(self.generator.parameters()).device
        self.discriminator.to(self._device)
        self._generator, self._discriminator = wrap(self.generator), wrap(self.discriminator)
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
        # The side that does not learn is called unwrapped: its part builds no graph for DDP to wait for.
        found = discriminator_step(self.generator, self._discriminator, batch_d, draws_d, config)
        norm = self._update(found, self.discriminator, self.optimizer_d, scale * config.lr_discriminator)
        metrics = {**found.metrics, "loss": found.loss.detach(), "grad_norm_d": torch.tensor(norm)}
        if step >= config.generator_delay:
            with frozen(self.discriminator):  # until after the backward pass, which may recompute its activations
                found = generator_step(self._generator, self.discriminator, batch_g, draws_g, config, self._alignment)
                norm = self._update(found, self.generator, self.optimizer_g, scale * config.lr_generator)
            self.ema.update(config.ode_warmup.steps + step - config.generator_delay + 1)
            metrics |= {**found.metrics, "grad_norm_g": torch.tensor(norm)}
        return {name: float(value) for name, value in metrics.items()}

    def _warm_up(self, teacher: nn.Module, step: int, batch: ArcBatch, draws: ArcDraws) -> dict[str, float]:
        """A step of the ODE warm-up. Batch and noise stay the same for `refresh` steps, and so do trajectories."""
        config, ode = self.config, self.config.ode_warmup
        number, turn = divmod(step, ode.refresh)
        if self._trajectories is None or self._trajectories[0] != number:
            self._trajectories = (number, follow(teacher, batch, draws.noise_BCT, ode))
        # A clip's level s, of no other use here, chooses its first point; the others follow evenly spread.
        first_B, stride = (draws.s_B * ode.sampling_steps).long(), max(1, ode.sampling_steps // ode.refresh)
        point_B = (first_B + turn * stride) % ode.sampling_steps
        found = warmup_step(self._generator, batch, self._trajectories[1], point_B)
        norm = self._update(found, self.generator, self.optimizer_g, config.lr_generator)
        self.ema.update(step + 1)
        metrics = found.metrics | {"loss": found.loss.detach(), "grad_norm_g": torch.tensor(norm)}
        return {name: float(value) for name, value in metrics.items()}

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

    def _update(self, found: StepLoss, module: nn.Module, optimizer: torch.optim.Optimizer, rate: float) -> float:
        optimizer.zero_grad(set_to_none=True)
        found.loss.backward()  # type: ignore[no-untyped-call]
        norm = clip_gradients(module.parameters(), self.config.grad_clip)
        set_rate(optimizer, rate)
        optimizer.step()
        return norm


def _names(module: nn.Module) -> list[str]:
    return [name for name, _ in module.named_parameters()]
