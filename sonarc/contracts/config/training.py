"""Pre-training, ARC, and the search of its weights."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from sonarc.contracts.config.base import Finite, Fraction, NonNegative, Positive, PositiveFloat, Section

NoiseName = Literal["uniform", "logit_normal", "truncated_logit_normal", "mixture", "logsnr_uniform"]


class NoiseConfig(Section):
    """A distribution of noise levels in (0, 1); 1 is pure noise."""

    name: NoiseName = "uniform"
    """`mixture`: logit-normal with probability `share`, else uniform. `logsnr_uniform`: t = sigmoid(−logSNR)."""
    mean: Finite = 0.0
    """Mean of the normal behind `logit_normal` and `mixture`."""
    std: PositiveFloat = 1.0
    """Standard deviation of that normal."""
    share: Fraction = 0.75
    """Share of logit-normal draws in `mixture`."""
    logsnr_min: Finite = -6.0
    """Lowest logSNR of `logsnr_uniform`."""
    logsnr_max: Finite = 2.0
    """Highest logSNR of `logsnr_uniform`."""


class PretrainConfig(Section):
    steps: Positive = 560
    """Optimizer steps."""
    batch: Positive = 16
    """Clips a step, over all workers."""
    lr: PositiveFloat = 1e-3
    """AdamW peak learning rate, cosine to zero."""
    betas: tuple[Fraction, Fraction] = (0.9, 0.99)
    weight_decay: NonNegative = 0.01
    warmup_steps: Annotated[int, Field(ge=0)] = 50
    """Linear warm-up, steps."""
    grad_clip: PositiveFloat = 1.0
    """Largest gradient norm."""
    ema: Fraction = 0.998
    """Decay of the exponential moving average of the weights, a step."""
    cfg_dropout: Fraction = 0.1
    """Share of clips trained without their text."""
    noise: NoiseConfig = NoiseConfig(name="mixture")
    checkpoint_every: Positive = 200
    """Steps between checkpoints."""
    seed: Annotated[int, Field(ge=0)] = 0


class HeadConfig(Section):
    kind: Literal["conv", "convnext"] = "conv"
    """Head of the discriminator on the features of the inner layer."""
    stages: Positive = 2
    """`conv`: stride-2 convolutions before the last one (the published head has 4)."""
    kernel: Positive = 3
    """`conv`: kernel of the last convolution (the published head has 4)."""

    @property
    def shortest(self) -> int:
        """Fewest tokens the head can score."""
        return self.kernel * 2**self.stages if self.kind == "conv" else 4


class OdeWarmupConfig(Section):
    """Before ARC, the generator learns where the frozen base's guided trajectories end."""

    steps: Annotated[int, Field(ge=0)] = 0
    """Steps of it, of `arc.steps`; 0: none."""
    sampling_steps: Annotated[int, Field(ge=2)] = 20
    """Steps of a trajectory of the base."""
    cfg: PositiveFloat = 4.0
    """Guidance of a trajectory."""
    refresh: Positive = 8
    """Steps that learn from one batch of trajectories, each from other points of them."""


class ArcConfig(Section):
    steps: Positive = 60
    """Pairs of a discriminator and a generator step, and the steps of the warm-up before them."""
    batch: Positive = 12
    """Clips a step, over all workers."""
    lr_generator: PositiveFloat = 1e-4
    lr_discriminator: PositiveFloat = 6e-4
    betas: tuple[Fraction, Fraction] = (0.0, 0.95)
    weight_decay: NonNegative = 0.01
    warmup_steps: Annotated[int, Field(ge=0)] = 20
    """Linear learning-rate warm-up of both, steps."""
    generator_delay: Annotated[int, Field(ge=0)] = 10
    """Steps in which only the discriminator learns."""
    grad_clip: PositiveFloat = 1.0
    ema: Fraction = 0.99
    """Decay of the generator's moving average, a step."""
    loss: Literal["relativistic", "lsgan"] = "relativistic"
    adversarial_weight: NonNegative = 1.0
    contrastive_weight: NonNegative = 0.5
    """λ of the contrastive term L_C; 0 disables it."""
    penalty_weight: NonNegative = 0.0
    """Weight of the approximated R1/R2 penalty; 0 disables it."""
    penalty_sigma: PositiveFloat = 0.05
    """Noise of the approximated penalty."""
    ode_warmup: OdeWarmupConfig = OdeWarmupConfig()
    """Off by default."""
    clap_weight: NonNegative = 0.0
    """Weight of `1 - cos` between a generated clip and its prompt in the space of `clap`; 0: off. The score `adherence`
    of a generator trained so, by the same CLAP, is no independent measurement."""
    clap: str = "clap-v1"
    """The CLAP of that term: one shipped with Sonarc by name, or a folder's location."""
    discriminator_depth: Positive = 4
    """Blocks of the pre-trained DiT the discriminator keeps."""
    head: HeadConfig = HeadConfig()
    noise_generator: NoiseConfig = NoiseConfig(name="logsnr_uniform")
    """p_gen(t)."""
    noise_discriminator: NoiseConfig = NoiseConfig(name="logit_normal", mean=-0.3)
    """p_disc(s)."""
    checkpoint_every: Positive = 30
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _pairs(self) -> Self:
        if self.batch == 1 and self.contrastive_weight:
            raise ValueError("a batch of 1 has no wrong prompt for the contrastive term; raise batch")
        if self.ode_warmup.steps > self.steps:
            raise ValueError(f"ode_warmup.steps {self.ode_warmup.steps} exceeds steps {self.steps}")
        return self


class RetrainConfig(Section):
    """How a run goes on from the champion. Off, as it is by default, it enters no stage's key."""

    only_new: bool = False
    """End after ingest, with "nothing new", where the dataset says what the champion's says. Scheduled runs do."""
    warm_start: Literal["off", "fitting", "required"] = "off"
    """Whether pre-training begins with the weights of the champion's base. `fitting`: from scratch where that base has
    another architecture, codec or text encoder; `required`: that is an error. With no champion, from scratch."""


Objective = Literal["frechet", "adherence", "diversity"]


class TuneConfig(Section):
    trials: Positive = 3
    """Trials in all; trial 0 has the configured weights."""
    steps: Positive = 20
    """ARC steps a trial."""
    objectives: tuple[Objective, ...] = ("frechet",)
    """What is searched for: the Fréchet distance alone, or it and others, whose Pareto front is then looked for."""
    rungs: Annotated[int, Field(ge=0)] = 0
    """Points within a trial, evenly spread, where its samples so far are scored and a trial whose distance is above the
    median of the others at that point is stopped; 0: none. With one objective only; trial 0 is never stopped."""
    rung_clips: Annotated[int, Field(ge=8)] = 32
    """Validation clips generated at a rung, the first of `clips`."""
    clips: Annotated[int, Field(ge=8)] = 64
    """Validation clips generated to score a trial."""
    adherence_slack: NonNegative = 0.02
    """A trial whose adherence is lower than trial 0's by more than this is not chosen."""
    diversity_slack: NonNegative = 0.02
    """Likewise for diversity, where it is an objective."""
    diversity_prompts: Positive = 8
    """Validation prompts whose diversity is measured, where it is an objective."""
    diversity_samples: Annotated[int, Field(ge=2)] = 4
    """Generations a prompt for that."""
    contrastive_weight: tuple[NonNegative, NonNegative] = (0.5, 2.0)
    """Range searched, logarithmic."""
    penalty_weight: tuple[NonNegative, NonNegative] = (0.0, 0.2)
    """Range searched, linear."""
    adversarial_weight: tuple[PositiveFloat, PositiveFloat] | None = None
    """Range searched, logarithmic; none: as configured."""
    penalty_sigma: tuple[PositiveFloat, PositiveFloat] | None = None
    """Range searched, logarithmic; none: as configured."""
    lr_ratio: tuple[PositiveFloat, PositiveFloat] | None = None
    """Range of the discriminator's learning rate over the generator's, logarithmic; none: as configured."""
    noise_mean: tuple[Finite, Finite] | None = None
    """Range of the mean of the discriminator's noise, linear; none: as configured."""
    bootstrap: Annotated[int, Field(ge=50)] = 100
    """Resamples behind the interval by which a trial must beat the configured weights."""
    parallel: Positive = 1
    """Trials at once."""
    seed: Annotated[int, Field(ge=0)] = 0

    def ranges(self) -> dict[str, tuple[float, float]]:
        """The search space: what is searched, and between which bounds."""
        names = (
            "contrastive_weight", "penalty_weight", "adversarial_weight", "penalty_sigma", "lr_ratio", "noise_mean",
        )  # fmt: skip
        return {name: found for name in names if (found := getattr(self, name)) is not None}

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        for name, (low, high) in self.ranges().items():
            if low > high:
                raise ValueError(f"the range of {name}, {low} to {high}, is empty")
        if not self.contrastive_weight[0]:
            raise ValueError("contrastive_weight is searched on a logarithmic scale and cannot begin at 0")
        return self

    @model_validator(mode="after")
    def _objectives(self) -> Self:
        if self.objectives[:1] != ("frechet",) or len(set(self.objectives)) < len(self.objectives):
            raise ValueError(f"the objectives {list(self.objectives)} must begin with frechet and name none twice")
        if self.rungs and len(self.objectives) > 1:
            raise ValueError(f"rungs {self.rungs} stop trials by one objective, and there are {len(self.objectives)}")
        if self.rungs >= self.steps:
            raise ValueError(f"rungs {self.rungs} do not fit into the {self.steps} steps of a trial")
        return self
