"""The studies that have a name."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sonarc.contracts.errors import ConfigError
from sonarc.contracts.presets import load
from sonarc.study.design import StudyDesign

FULL = (
    "data.demo.clips=10000",
    "pretrain.steps=2400",
    "pretrain.batch=64",
    "pretrain.warmup_steps=100",
    "pretrain.checkpoint_every=250",
    "arc.steps=200",
    "arc.batch=32",
    "arc.lr_generator=2e-5",
    "arc.lr_discriminator=2e-4",
    "arc.warmup_steps=30",
    "arc.generator_delay=20",
    "arc.contrastive_weight=1.0",
    "arc.penalty_weight=10",
    "arc.ode_warmup.steps=0",
    "arc.checkpoint_every=50",
)
TINY = ("data.demo.clips=96", "arc.penalty_weight=0.1", "arc.ode_warmup.steps=0")


def full(overrides: Sequence[str] = ()) -> StudyDesign:
    """Hours on two cores: ten thousand clips, a base, and ARC with four ablations, two seeds each."""
    return StudyDesign(config=load("laptop", [*FULL, *overrides]))


def tiny(overrides: Sequence[str] = ()) -> StudyDesign:
    """Every part at toy size, in minutes: to see that it works."""
    return StudyDesign(
        config=load("ci", [*TINY, *overrides]),
        clips=16,
        valid_clips=16,
        train_clips=64,
        base_steps=(4, 1),
        guidance=(1.5, 2.5),
        arc_steps=(4, 1),
        ablation_steps=(4,),
        training_seeds=(0,),
        diversity_prompts=4,
        diversity_samples=2,
        bootstrap=50,
    )


SIZES: dict[str, Callable[[Sequence[str]], StudyDesign]] = {"full": full, "tiny": tiny}


def design_of(size: str, overrides: Sequence[str] = ()) -> StudyDesign:
    """The study of that name, with dotted overrides of its config tree.

    Raises:
        ConfigError: no study has that name, or an override does not fit.
    """
    if size not in SIZES:
        raise ConfigError(f"There is no study {size!r}.", f"Use one of {', '.join(SIZES)}.")
    return SIZES[size](overrides)
