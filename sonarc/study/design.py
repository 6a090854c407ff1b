"""What a study trains, samples and compares."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from sonarc.contracts.config import ArcConfig, Fraction, Positive, Section, SonarcConfig
from sonarc.contracts.hashing import sha256_json

ARC = "arc"
"""The arm that the others are held against."""


class StudyDesign(Section):
    """One study. Rows are scored on the test split; everything chosen is chosen on the validation split."""

    config: SonarcConfig
    """Data, codec, base and ARC of the study; `arc` is the arm `arc`."""
    clips: Annotated[int, Field(ge=16)] = 1_000
    """Clips a row, prompts from the test split."""
    valid_clips: Annotated[int, Field(ge=16)] = 200
    """Clips a row when something is chosen, prompts from the validation split."""
    train_clips: Annotated[int, Field(ge=16)] = 3_000
    """At most so many train clips are listened to: for the class probe, and as neighbours that memory would copy."""
    base_steps: tuple[Positive, ...] = (50, 8, 4, 2, 1)
    """Samplings of the base, each without guidance and with the guidance that validation chose."""
    guidance: tuple[float, ...] = (1.5, 2.5, 4.0)
    """Guidance that is tried on validation."""
    arc_steps: tuple[Positive, ...] = (8, 4, 2, 1)
    """Samplings of the arm `arc`."""
    ablation_steps: tuple[Positive, ...] = (8, 4)
    """Samplings of the other arms."""
    warmup_share: Fraction = 0.4
    """Share of its iterations that the arm `arc_warmup` spends on the ODE warm-up."""
    training_seeds: tuple[int, ...] = (0, 1)
    """Seeds that ARC and each ablation are trained with."""
    sampling_seed: int = 2_000
    """The first clip's seed; the others count up from it."""
    diversity_prompts: Positive = 64
    """Prompts that are answered several times."""
    diversity_samples: Annotated[int, Field(ge=2)] = 4
    """Answers to each."""
    bootstrap: Annotated[int, Field(ge=50)] = 100
    """Resamples behind each interval."""

    def arms(self) -> dict[str, ArcConfig]:
        """Every arm by name: `arc` and what it is without one of its parts, iterations alike."""
        arc = self.config.arc
        ode = arc.ode_warmup.model_copy(update={"steps": round(self.warmup_share * arc.steps)})
        return {
            ARC: arc,
            "arc_no_contrastive": arc.model_copy(update={"contrastive_weight": 0.0}),
            "arc_lsgan": arc.model_copy(update={"loss": "lsgan"}),
            "arc_no_penalty": arc.model_copy(update={"penalty_weight": 0.0}),
            "arc_warmup": arc.model_copy(update={"ode_warmup": ode}),
        }

    def steps_of(self, arm: str) -> tuple[int, ...]:
        """The samplings of an arm."""
        return self.arc_steps if arm == ARC else self.ablation_steps

    def sha256(self) -> str:
        """Hash of the whole design."""
        return sha256_json(self.model_dump(mode="json"))
