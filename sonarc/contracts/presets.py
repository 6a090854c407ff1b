"""Presets are functions (`ci`, `laptop`, `saos`); a run is a preset with dotted overrides.

`load("laptop", ["pretrain.steps=2000", "arc.contrastive_weight=0.5"])`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from sonarc.contracts.config import (
    ArcConfig,
    AudioConfig,
    CodecConfig,
    ComputeConfig,
    DataConfig,
    DemoConfig,
    DiTConfig,
    EvaluateConfig,
    GateConfig,
    GateRule,
    HeadConfig,
    NoiseConfig,
    OdeWarmupConfig,
    PretrainConfig,
    RegistryConfig,
    SamplerConfig,
    ServeConfig,
    SonarcConfig,
    TextConfig,
    TuneConfig,
    parse,
)
from sonarc.contracts.errors import ConfigError


def laptop() -> SonarcConfig:
    """The default: 2.97 s clips, a 7 M parameter DiT, made for twenty minutes on two cores."""
    return SonarcConfig(
        # A base of a few minutes says little at few steps. Where its guided trajectories end is learnt in seconds, and
        # ARC goes on from there (docs/adr/0009-a-warm-up-before-arc-on-the-laptop.md).
        arc=ArcConfig(
            steps=100,
            lr_generator=5e-5,
            contrastive_weight=1.0,
            ode_warmup=OdeWarmupConfig(steps=40, sampling_steps=8, cfg=4.0, refresh=4),
            checkpoint_every=50,
        )
    )


def ci() -> SonarcConfig:
    """The same pipeline at toy sizes, for tests: 1.49 s clips, minutes in all."""
    return SonarcConfig(
        preset="ci",
        audio=AudioConfig(samples=65_536),
        # Half is held out: of so few groups, with recorded sounds or without, some then fall into every split.
        data=DataConfig(demo=DemoConfig(clips=64, recorded_limit=24), shard_clips=16, train_fraction=0.5),
        dit=DiTConfig(width=64, depth=2, heads=2, patch=2, cond_width=64),
        pretrain=PretrainConfig(steps=12, batch=8, warmup_steps=2, checkpoint_every=6),
        arc=ArcConfig(
            steps=6,
            batch=8,
            warmup_steps=2,
            generator_delay=1,
            discriminator_depth=1,
            ode_warmup=OdeWarmupConfig(steps=2, sampling_steps=2, cfg=2.0, refresh=2),
            checkpoint_every=3,
        ),
        tune=TuneConfig(trials=2, steps=2, clips=8),
        evaluate=EvaluateConfig(
            reference="ci-ref-v1",
            clips=16,
            base=(SamplerConfig(steps=4, cfg=1.0), SamplerConfig(steps=4, cfg=2.5)),
            generator=(4, 1),
            diversity_prompts=2,
            diversity_samples=2,
            bootstrap=50,
            sample_prompts=3,
        ),
        gate=GateConfig(rules=(GateRule(metric="silent_fraction", side="below", bound=0.9),)),
        # Names of its own: a trial run must not meet the champion or the reference of real clips in one store.
        registry=RegistryConfig(model="sonarc-ci", base_model="sonarc-ci-base"),
        serve=ServeConfig(port=8_470, threads=1),
        compute=ComputeConfig(workers=1, threads=2, data_tasks=1),
    )


def saos() -> SonarcConfig:
    """The shape of Stable Audio Open Small: 11.89 s, 341 M parameters."""
    return SonarcConfig(
        preset="saos",
        audio=AudioConfig(samples=524_288),
        codec=CodecConfig(kind="oobleck", uri=""),
        text=TextConfig(kind="t5", path="google-t5/t5-base", max_tokens=64, width=768),
        dit=DiTConfig(width=1024, depth=16, heads=8, ff_mult=4, patch=1, cond_width=768, global_cond="prepend"),
        pretrain=PretrainConfig(steps=800, batch=64),
        arc=ArcConfig(
            lr_generator=1e-6,
            lr_discriminator=1e-6,
            contrastive_weight=1.0,
            betas=(0.9, 0.95),
            ema=0.9999,
            warmup_steps=0,
            generator_delay=0,
            discriminator_depth=13,
            head=HeadConfig(kind="conv", stages=4, kernel=4),
            noise_discriminator=NoiseConfig(name="logit_normal"),
            batch=256,
            steps=100_000,
            checkpoint_every=100,
        ),
        tune=TuneConfig(steps=30, contrastive_weight=(0.25, 4.0), penalty_weight=(0.0, 1.0)),
        evaluate=EvaluateConfig(clips=200),
    )


PRESETS: dict[str, Callable[[], SonarcConfig]] = {"laptop": laptop, "ci": ci, "saos": saos}


def load(preset: str, overrides: Iterable[str] = ()) -> SonarcConfig:
    """A preset, or a JSON file of a whole tree, with dotted overrides.

    Args:
        preset: a name in `PRESETS`, or the path of a JSON file.
        overrides: `section.field=value`; the value is JSON, or a plain string.

    Raises:
        ConfigError: unknown preset or key, a value of the wrong type or out of range.
    """
    if preset in PRESETS:
        tree = PRESETS[preset]().model_dump(mode="json")
    elif preset.endswith(".json"):
        tree = _read_tree(Path(preset))
    else:
        raise ConfigError(
            f"There is no preset {preset!r}.", f"Use one of {', '.join(PRESETS)}, or the path of a .json file."
        )
    for override in overrides:
        _apply(tree, override)
    return parse(tree)


def _read_tree(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"Cannot read the configuration {path}: {error.strerror}.", "Check the path.") from error
    except ValueError as error:
        raise ConfigError(f"The configuration {path} is not valid JSON: {error}.", "Mend the file.") from error


def _apply(tree: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    if not equals or not path:
        raise ConfigError(
            f"The override {override!r} is not of the form section.field=value.", "Example: arc.steps=200"
        )
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    *parents, leaf = path.split(".")
    node: Any = tree
    for part in parents:
        node = node.get(part) if isinstance(node, dict) else None
    if not isinstance(node, dict) or leaf not in node:
        known = ", ".join(sorted(node)) if isinstance(node, dict) else ", ".join(sorted(tree))
        raise ConfigError(f"There is no setting {path!r}.", f"Known here: {known}.")
    node[leaf] = value
