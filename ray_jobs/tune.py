"""Tune the ARC loss weights: short trials, scored by what their samples sound like.

Every trial post-trains the same base on the same batches with the same seeds; only the weights differ. The
objective is the Fréchet distance of 4-step samples to the validation split, with adherence as a constraint:
never a training loss, never the test split. The study is kept in the user's cache until the stage is done, so
that a killed job goes on with the trial it was at.
"""

from __future__ import annotations

import copy
import logging
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
import ray

from ray_jobs.job import Outcome, StageContext, main, worker_env
from ray_jobs.parallel import plain_errors
from sonarc.arc.tuning import choose
from sonarc.contracts import store
from sonarc.contracts.config import ArcConfig, SonarcConfig, TextConfig, TuneConfig
from sonarc.contracts.dataset import read_latents
from sonarc.contracts.result import Artifact
from sonarc.contracts.tuning import LossWeights, Trial

if TYPE_CHECKING:
    from torch import Tensor

    from sonarc.arc import ArcData, ArcTrainer
    from sonarc.arc.validation import Validation
    from sonarc.dit import DiT
    from sonarc.text import TextEncoder

logger = logging.getLogger(__name__)

STEPS = 4
"""Sampling steps of the objective."""


@dataclass(frozen=True)
class Measured:
    """What a trial reports.

    Attributes:
        frechet: distance to the validation clips; NaN where training or samples diverged.
        adherence: mean cosine of samples and prompts; NaN likewise.
        curves: figures of some steps of the training, step → name → value.
    """

    frechet: float
    adherence: float
    curves: dict[int, dict[str, float]]


@dataclass(frozen=True)
class Settings:
    """What every trial is given."""

    config: SonarcConfig
    base_uri: str
    dataset_uri: str
    latents_uri: str
    reference_uri: str


Measure = Callable[[Settings, LossWeights], Measured]


def run(context: StageContext) -> Outcome:
    """Search the weights and write `weights.json`."""
    return tune(context, measure)


def tune(context: StageContext, measure: Measure) -> Outcome:
    """Search the weights, each trial a Ray task that calls `measure`."""
    config = context.config
    latents = context.input("encode", "latents")
    settings = Settings(
        config,
        base_uri=context.input("pretrain", "base").uri,
        dataset_uri=read_latents(latents.uri).dataset_uri,
        latents_uri=latents.uri,
        reference_uri=context.input("reference", "reference").uri,
    )
    place = store.cache_root() / "tune" / context.request.key()
    trials = _search(context, settings, measure, place)
    tuned = choose(trials, adherence_slack=config.tune.adherence_slack)
    uri = store.join(context.folder, "weights.json")
    digest = store.write_json(uri, tuned.model_dump(mode="json"))
    shutil.rmtree(place, ignore_errors=True)
    best = next(trial for trial in trials if trial.number == tuned.chosen)
    logger.info("trial %d of %d was chosen: %s", tuned.chosen, len(trials), best.weights)
    assert best.frechet is not None and best.adherence is not None  # a failed trial is never chosen
    return Outcome(
        {"weights": Artifact(uri=uri, sha256=digest)},
        metrics={"frechet": best.frechet, "adherence": best.adherence, **best.weights.model_dump()},
        counts={"trials": len(trials), "failed": sum(trial.failed for trial in trials), "chosen": tuned.chosen},
    )


def _search(context: StageContext, settings: Settings, measure: Measure, place: Path) -> list[Trial]:
    """Ask for weights, measure them, tell the study, until it has its trials."""
    config, compute = context.config.tune, context.config.compute
    study = _study(place, settings.config)
    task = ray.remote(
        num_cpus=compute.threads,
        num_gpus=int(compute.gpu),
        runtime_env={"env_vars": worker_env(compute.threads)},
    )(measure)
    done = _finished(study)
    for trial in done:
        _log(context, trial, {}, recovered=True)
    begun = len(done)
    running: dict[Any, optuna.trial.Trial] = {}
    with plain_errors():
        while begun < config.trials or running:
            while begun < config.trials and len(running) < config.parallel:
                asked, weights = _ask(study, settings.config, begun)
                running[task.remote(settings, weights)] = asked
                begun += 1
                context.progress(len(done), config.trials, unit="trials", message=f"trial {asked.number}: {weights!r}")
            (reference,), _ = ray.wait(list(running))
            asked, measured = running.pop(reference), ray.get(reference)
            done.append(_tell(study, asked, measured))
            _log(context, done[-1], measured.curves)
            context.progress(len(done), config.trials, unit="trials")
    return done


def _study(place: Path, config: SonarcConfig) -> optuna.Study:
    """The study in a folder of the cache, new or left by a killed job, whose open trials are put back in the queue."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    place.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        study_name="weights",
        storage=f"sqlite:///{place / 'study.db'}",
        direction="minimize",
        load_if_exists=True,
    )
    trials = study.get_trials()
    if not trials:
        study.enqueue_trial(_configured(config.arc).model_dump())
    for trial in trials:
        if trial.state == optuna.trial.TrialState.RUNNING:
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
            study.enqueue_trial(trial.params)
    return study


def _configured(arc: ArcConfig) -> LossWeights:
    return LossWeights(contrastive_weight=arc.contrastive_weight, penalty_weight=arc.penalty_weight)


def _ask(study: optuna.Study, config: SonarcConfig, number: int) -> tuple[optuna.trial.Trial, LossWeights]:
    """The next weights. Seeded by the trial's number, so that a resumed search asks what an undisturbed one would."""
    tune = config.tune
    startup = max(1, min(10, tune.trials // 2))
    study.sampler = optuna.samplers.TPESampler(seed=tune.seed + number, n_startup_trials=startup)
    asked = study.ask()
    asked.set_user_attr("number", number)
    contrastive = 0.0
    if config.arc.contrastive_weight:  # a term that is switched off stays off
        contrastive = asked.suggest_float(
            "contrastive_weight", *_around(tune, config.arc, "contrastive_weight"), log=True
        )
    penalty = asked.suggest_float("penalty_weight", *_around(tune, config.arc, "penalty_weight"))
    return asked, LossWeights(contrastive_weight=contrastive, penalty_weight=penalty)


def _around(tune: TuneConfig, arc: ArcConfig, name: str) -> tuple[float, float]:
    """The configured range, widened to hold the configured weight."""
    (low, high), weight = getattr(tune, name), getattr(arc, name)
    return min(low, weight), max(high, weight)


def _tell(study: optuna.Study, asked: optuna.trial.Trial, measured: Measured) -> Trial:
    asked.set_user_attr("adherence", measured.adherence)
    asked.set_user_attr("frechet", measured.frechet)
    asked.set_user_attr("measured", True)
    if math.isfinite(measured.frechet):
        study.tell(asked, measured.frechet)
    else:
        study.tell(asked, state=optuna.trial.TrialState.FAIL)
    return next(trial for trial in _finished(study) if trial.number == asked.user_attrs["number"])


def _finished(study: optuna.Study) -> list[Trial]:
    """Trials that were measured, in the order of their numbers."""
    found = []
    for trial in study.get_trials():
        if not trial.user_attrs.get("measured"):
            continue
        figures = {name: trial.user_attrs[name] for name in ("frechet", "adherence")}
        found.append(
            Trial(
                number=trial.user_attrs["number"],
                weights=LossWeights(
                    contrastive_weight=trial.params.get("contrastive_weight", 0.0),
                    penalty_weight=trial.params["penalty_weight"],
                ),
                **{name: value if math.isfinite(value) else None for name, value in figures.items()},
            )
        )
    return sorted(found, key=lambda trial: trial.number)


def _log(context: StageContext, trial: Trial, curves: dict[int, dict[str, float]], *, recovered: bool = False) -> None:
    """One nested run a trial."""
    with context.run.child(f"trial-{trial.number}") as run:
        run.log_params({**trial.weights.model_dump(), "number": trial.number, "recovered": recovered})
        for step, metrics in curves.items():
            run.log_metrics(metrics, step=step)
        if not trial.failed:
            run.log_metrics({name: float(getattr(trial, name)) for name in ("frechet", "adherence")})


def measure(settings: Settings, weights: LossWeights) -> Measured:
    """Post-train for a few steps in this process, then generate and score. Trials share the ODE warm-up, if there is
    one: the searched weights have no part in it."""
    from sonarc.training import DivergedError

    config = settings.config
    first = config.arc.ode_warmup.steps
    arc = config.arc.model_copy(update={**weights.model_dump(), "steps": first + config.tune.steps})
    trainer, data = _trainer(settings, arc)
    curves: dict[int, dict[str, float]] = {}
    try:
        if first:
            trainer.load(*copy.deepcopy(_warmed(settings)))
        for step in range(first, arc.steps):
            metrics = _step(trainer, data, step)
            if (step + 1) % 10 == 0 or step + 1 == arc.steps:
                curves[step + 1] = metrics
    except DivergedError as error:
        logger.warning("%r diverged: %s", weights, error)
        return Measured(math.nan, math.nan, curves)
    validation = _validation(settings.dataset_uri, settings.reference_uri, config.model_dump_json())
    return Measured(*validation.score(_averaged(trainer), data.encoder, steps=STEPS), curves)


def _trainer(settings: Settings, arc: ArcConfig) -> tuple[ArcTrainer, ArcData]:
    import torch

    from sonarc.arc import ArcData, ArcTrainer
    from sonarc.arc.alignment import ClapAlignment
    from sonarc.checkpoint import load_dit
    from sonarc.data import load_latents

    torch.set_num_threads(settings.config.compute.threads)
    base, bound = load_dit(settings.base_uri)
    encoder = _encoder(bound.text)
    latents = load_latents(settings.latents_uri, settings.dataset_uri, "train")
    alignment = ClapAlignment.load(bound.codec.uri, arc.clap, encoder) if arc.clap_weight else None
    data = ArcData(latents, encoder, arc, patch=bound.dit.patch)
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
    """The generator with its averaged weights."""
    from sonarc.checkpoint import load_tensors

    load_tensors(trainer.generator, trainer.ema.state_dict(), what="generator")
    model: DiT = trainer.generator.eval()
    return model


@lru_cache(maxsize=1)
def _encoder(config: TextConfig) -> TextEncoder:
    """One a worker process, which remembers the captions of its earlier trials."""
    from sonarc.text import load_text_encoder

    return load_text_encoder(config)


@lru_cache(maxsize=1)
def _validation(dataset_uri: str, reference_uri: str, config_json: str) -> Validation:
    """Loaded once a worker process: its trials share it."""
    from sonarc.arc.validation import Validation

    return Validation.load(dataset_uri, reference_uri, SonarcConfig.model_validate_json(config_json))


if __name__ == "__main__":
    main("tune")
