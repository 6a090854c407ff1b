"""One trial: a short post-training with some loss weights, scored by what its samples sound like.

Every trial trains the same base on the same batches with the same seeds; only the weights differ. What its worker
process can keep for the next trial, it keeps: the ODE warm-up, the text encoder's captions, the validation clips.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, cast

from sonarc.contracts.config import ArcConfig, SonarcConfig, TextConfig
from sonarc.contracts.tuning import LossWeights
from sonarc.tuning.results import Measured, diverged

if TYPE_CHECKING:
    from torch import Tensor

    from sonarc.arc import ArcData, ArcTrainer
    from sonarc.dit import DiT
    from sonarc.text import TextEncoder
    from sonarc.tuning.validation import Validation

logger = logging.getLogger(__name__)

STEPS = 4
"""Sampling steps of the objective."""


@dataclass(frozen=True)
class Settings:
    """What every trial is given."""

    config: SonarcConfig
    base_uri: str
    dataset_uri: str
    latents_uri: str
    reference_uri: str


Report = Callable[[int, float], bool]
"""Told a step and the distance at it, says whether to stop."""
Measure = Callable[[Settings, LossWeights, Report], Measured]


def rung_steps(first: int, steps: int, rungs: int) -> list[int]:
    """The steps after which a trial of steps `first` to `steps` is looked at on its way."""
    return [first + (steps - first) * rung // (rungs + 1) for rung in range(1, rungs + 1)]


def measure(settings: Settings, weights: LossWeights, report: Report) -> Measured:
    """Post-train for a few steps in this process, then generate and score. Trials share the ODE warm-up, if there is
    one: the searched weights have no part in it."""
    from sonarc.training import DivergedError

    config, tune = settings.config, settings.config.tune
    first = config.arc.ode_warmup.steps
    arc = weights.applied(config.arc).model_copy(update={"steps": first + tune.steps})
    trainer, data = _trainer(settings, arc)
    rungs = rung_steps(first, arc.steps, tune.rungs)
    curves: dict[int, dict[str, float]] = {}
    try:
        if first:
            trainer.load(*copy.deepcopy(_warmed(settings)))
        for step in range(first, arc.steps):
            metrics = _step(trainer, data, step)
            if (step + 1) % 10 == 0 or step + 1 == arc.steps:
                curves[step + 1] = metrics
            if step + 1 in rungs:
                distance = _ears(settings).distance(
                    _averaged(trainer), data.encoder, steps=STEPS, clips=tune.rung_clips
                )
                curves.setdefault(step + 1, {})["rung_frechet"] = distance
                if not math.isfinite(distance):
                    logger.warning("%r: samples after step %d are not finite", weights, step + 1)
                    return diverged(curves)
                if report(step + 1, distance):
                    return diverged(curves, stopped=True)
    except DivergedError as error:
        logger.warning("%r diverged: %s", weights, error)
        return diverged(curves)
    variants = (tune.diversity_prompts, tune.diversity_samples) if "diversity" in tune.objectives else None
    heard = _ears(settings).score(_averaged(trainer), data.encoder, steps=STEPS, variants=variants)
    return Measured(heard.frechet, heard.adherence, curves, heard.drawn, heard.diversity)


def _trainer(settings: Settings, arc: ArcConfig) -> tuple[ArcTrainer, ArcData]:
    import torch

    from sonarc.arc import ArcData, ArcTrainer
    from sonarc.arc.alignment import ClapAlignment
    from sonarc.checkpoint import load_dit
    from sonarc.data import load_latents

    compute = settings.config.compute
    torch.set_num_threads(compute.threads)
    base, bound = load_dit(settings.base_uri)
    encoder = _encoder(bound.text)
    latents = load_latents(settings.latents_uri, settings.dataset_uri, "train")
    alignment = ClapAlignment.load(bound.codec.uri, arc.clap, encoder) if arc.clap_weight else None
    data = ArcData(latents, encoder, arc, patch=bound.dit.patch)
    base = base.to("cuda" if compute.gpu else "cpu")
    return ArcTrainer(base, arc, seed=arc.seed, alignment=alignment), data


def _step(trainer: ArcTrainer, data: ArcData, step: int) -> dict[str, float]:
    (batch_d, draws_d), (batch_g, draws_g) = data(step, "discriminator"), data(step, "generator")
    return trainer.step(step, (batch_d, batch_g), (draws_d, draws_g))


@lru_cache(maxsize=1)
def _warmed(settings: Settings) -> tuple[dict[str, Tensor], dict[str, dict[str, Tensor]]]:
    """Averaged weights and training state after the ODE warm-up, made once a worker process."""
    trainer, data = _trainer(settings, settings.config.arc)
    for step in range(settings.config.arc.ode_warmup.steps):
        _step(trainer, data, step)
    return trainer.ema.state_dict(), trainer.state()


def _averaged(trainer: ArcTrainer) -> DiT:
    """A copy of the generator with its averaged weights, where clips are sampled: on the CPU."""
    from sonarc.checkpoint import load_tensors

    copied = copy.deepcopy(trainer.generator).cpu()
    load_tensors(copied, trainer.ema.state_dict(), what="generator")
    return cast("DiT", copied.eval())


@lru_cache(maxsize=1)
def _encoder(config: TextConfig) -> TextEncoder:
    """One a worker process, which remembers the captions of its earlier trials."""
    from sonarc.text import load_text_encoder

    return load_text_encoder(config)


def _ears(settings: Settings) -> Validation:
    return _validation(settings.dataset_uri, settings.reference_uri, settings.config.model_dump_json())


@lru_cache(maxsize=1)
def _validation(dataset_uri: str, reference_uri: str, config_json: str) -> Validation:
    """Loaded once a worker process: its trials share it."""
    from sonarc.tuning.validation import Validation

    return Validation.load(dataset_uri, reference_uri, SonarcConfig.model_validate_json(config_json))
