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

import numpy as np
import optuna
import ray

from ray_jobs.job import Outcome, StageContext, main, worker_env
from ray_jobs.parallel import plain_errors
from sonarc.arc.tuning import choose
from sonarc.contracts import store
from sonarc.contracts.config import ArcConfig, SonarcConfig, TextConfig, TuneConfig
from sonarc.contracts.dataset import read_latents
from sonarc.contracts.errors import ConfigError
from sonarc.contracts.result import Artifact
from sonarc.contracts.tuning import Against, LossWeights, Trial
from sonarc.metrics.bootstrap import interval

if TYPE_CHECKING:
    from torch import Tensor

    from sonarc.arc import ArcData, ArcTrainer
    from sonarc.arc.validation import Validation
    from sonarc.dit import DiT
    from sonarc.text import TextEncoder

logger = logging.getLogger(__name__)

STEPS = 4
"""Sampling steps of the objective."""
LINEAR = ("penalty_weight", "noise_mean")
"""What is searched on a linear scale: it may be 0."""


@dataclass(frozen=True)
class Measured:
    """What a trial reports.

    Attributes:
        frechet: distance to the validation clips; NaN where training or samples diverged.
        adherence: mean cosine of samples and prompts; NaN likewise.
        curves: figures of some steps of the training, step → name → value.
        drawn: the distance of each bootstrap resample of the prompts, the same ones for every trial.
    """

    frechet: float
    adherence: float
    curves: dict[int, dict[str, float]]
    drawn: tuple[float, ...] = ()


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
        metrics={
            "frechet": best.frechet,
            "adherence": best.adherence,
            **best.weights.model_dump(exclude_none=True),
        },
        counts={"trials": len(trials), "failed": sum(trial.failed for trial in trials), "chosen": tuned.chosen},
    )


def _search(context: StageContext, settings: Settings, measure: Measure, place: Path) -> list[Trial]:
    """Ask for weights, measure them, tell the study, until it has its trials."""
    config, compute = context.config.tune, context.config.compute
    study = _study(place, settings.config)
    task = ray.remote(
        num_cpus=compute.threads,
        num_gpus=int(compute.gpu),
        max_retries=1,  # a worker that was killed, for memory most likely
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
            asked, measured = running.pop(reference), _result(reference)
            done.append(_tell(study, asked, measured))
            _log(context, done[-1], measured.curves)
            context.progress(len(done), config.trials, unit="trials")
    return done


def _result(reference: Any) -> Measured:
    """What a trial measured; one whose process died twice has diverged as far as the search is concerned."""
    try:
        measured: Measured = ray.get(reference)
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError, ray.exceptions.NodeDiedError) as error:
        logger.warning("a trial's process died twice: %s", str(error).splitlines()[0])
        return Measured(math.nan, math.nan, {})
    return measured


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
    space = {name: list(bounds) for name, bounds in _space(config.tune, config.arc).items()}
    if study.user_attrs.get("space", space) != space:
        raise ConfigError(
            f"The search in {place} was begun in another space: {study.user_attrs['space']}, not {space}.",
            "Remove that folder, or search in the space it was begun in.",
        )
    study.set_user_attr("space", space)
    trials = study.get_trials()
    if not trials:
        configured = _configured(config.tune, config.arc).model_dump(exclude_none=True)
        study.enqueue_trial({name: value for name, value in configured.items() if name in space})
    for trial in trials:
        if trial.state == optuna.trial.TrialState.RUNNING:
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
            study.enqueue_trial(trial.params)
    return study


def _configured(tune: TuneConfig, arc: ArcConfig) -> LossWeights:
    """What is configured, of all that is searched."""
    searched = {
        "adversarial_weight": arc.adversarial_weight,
        "penalty_sigma": arc.penalty_sigma,
        "lr_ratio": arc.lr_discriminator / arc.lr_generator,
        "noise_mean": arc.noise_discriminator.mean,
    }
    return LossWeights(
        contrastive_weight=arc.contrastive_weight,
        penalty_weight=arc.penalty_weight,
        **{name: value for name, value in searched.items() if name in tune.ranges()},
    )


def _ask(study: optuna.Study, config: SonarcConfig, number: int) -> tuple[optuna.trial.Trial, LossWeights]:
    """The next weights. Seeded by the trial's number, so that a resumed search asks what an undisturbed one would."""
    tune = config.tune
    startup = max(1, min(10, tune.trials // 2))
    study.sampler = optuna.samplers.TPESampler(seed=tune.seed + number, n_startup_trials=startup)
    asked = study.ask()
    asked.set_user_attr("number", number)
    for name, (low, high) in _space(tune, config.arc).items():
        asked.suggest_float(name, low, high, log=name not in LINEAR)
    return asked, _weights(asked.params)


def _weights(params: dict[str, float]) -> LossWeights:
    return LossWeights(**{"contrastive_weight": 0.0, **params})


def _space(tune: TuneConfig, arc: ArcConfig) -> dict[str, tuple[float, float]]:
    """The configured ranges, widened to hold what is configured. A term that is switched off stays off."""
    configured = _configured(tune, arc).model_dump(exclude_none=True)
    return {
        name: (min(low, configured[name]), max(high, configured[name]))
        for name, (low, high) in tune.ranges().items()
        if name != "contrastive_weight" or arc.contrastive_weight
    }


def _tell(study: optuna.Study, asked: optuna.trial.Trial, measured: Measured) -> Trial:
    asked.set_user_attr("adherence", measured.adherence)
    asked.set_user_attr("frechet", measured.frechet)
    asked.set_user_attr("drawn", list(measured.drawn))
    asked.set_user_attr("measured", True)
    if math.isfinite(measured.frechet):
        study.tell(asked, measured.frechet)
    else:
        study.tell(asked, state=optuna.trial.TrialState.FAIL)
    return next(trial for trial in _finished(study) if trial.number == asked.user_attrs["number"])


def _finished(study: optuna.Study) -> list[Trial]:
    """Trials that were measured, in the order of their numbers."""
    measured = sorted(
        (trial for trial in study.get_trials() if trial.user_attrs.get("measured")),
        key=lambda trial: trial.user_attrs["number"],
    )
    default = next((trial.user_attrs for trial in measured if trial.user_attrs["number"] == 0), None)
    found = []
    for trial in measured:
        figures = {name: trial.user_attrs[name] for name in ("frechet", "adherence")}
        found.append(
            Trial(
                number=trial.user_attrs["number"],
                weights=_weights(trial.params),
                against_default=_against(trial.user_attrs, default),
                **{name: value if math.isfinite(value) else None for name, value in figures.items()},
            )
        )
    return found


def _against(trial: dict[str, Any], default: dict[str, Any] | None) -> Against | None:
    """A trial's distance minus that of the configured weights, over the same resamples of the prompts."""
    if default is None or trial["number"] == 0 or not (trial["drawn"] and default["drawn"]):
        return None
    difference = np.asarray(trial["drawn"]) - np.asarray(default["drawn"])
    found = interval(trial["frechet"] - default["frechet"], difference)
    return Against(value=found.value, low=found.low, high=found.high)


def _log(context: StageContext, trial: Trial, curves: dict[int, dict[str, float]], *, recovered: bool = False) -> None:
    """One nested run a trial."""
    with context.run.child(f"trial-{trial.number}") as run:
        settings = trial.weights.model_dump(exclude_none=True)
        run.log_params({**settings, "number": trial.number, "recovered": recovered})
        for step, metrics in curves.items():
            run.log_metrics(metrics, step=step)
        if not trial.failed:
            run.log_metrics({name: float(getattr(trial, name)) for name in ("frechet", "adherence")})
        if (against := trial.against_default) is not None:
            run.log_metrics({f"against_default_{name}": value for name, value in against.model_dump().items()})


def measure(settings: Settings, weights: LossWeights) -> Measured:
    """Post-train for a few steps in this process, then generate and score. Trials share the ODE warm-up, if there is
    one: the searched weights have no part in it."""
    from sonarc.training import DivergedError

    config = settings.config
    first = config.arc.ode_warmup.steps
    arc = weights.applied(config.arc).model_copy(update={"steps": first + config.tune.steps})
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
    heard = validation.score(_averaged(trainer), data.encoder, steps=STEPS)
    return Measured(heard.frechet, heard.adherence, curves, heard.drawn)


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
