"""What the work runs on, and the whole tree."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from sonarc.contracts.config.base import NonNegative, Positive, PositiveFloat, Section
from sonarc.contracts.config.data import AudioConfig, DataConfig
from sonarc.contracts.config.evaluation import EvaluateConfig, GateConfig, RegistryConfig
from sonarc.contracts.config.models import CodecConfig, DiTConfig, TextConfig
from sonarc.contracts.config.serving import ServeConfig
from sonarc.contracts.config.training import ArcConfig, PretrainConfig, RetrainConfig, TuneConfig
from sonarc.contracts.errors import ConfigError
from sonarc.contracts.hashing import sha256_json


class ComputeConfig(Section):
    """What the work runs on. It never enters a stage's key."""

    workers: Positive | tuple[Positive, Positive] = 1
    """Training workers (DDP over gloo on CPUs, nccl on GPUs); two numbers: from so many to so many, as room allows."""
    resize_seconds: PositiveFloat = 60.0
    """How often a range of workers is fitted to the room there is, seconds."""
    collective_seconds: Positive = 600
    """Workers that wait longer for each other than this, seconds, give up; a lost machine is noticed sooner by Ray."""
    threads: Positive = 2
    """CPU threads of each training worker."""
    logical_cpus: Positive = 8
    """CPUs a local Ray declares, so that stages never wait for each other for ever."""
    data_tasks: Positive = 2
    """Parallel data tasks."""
    gpu: bool = False
    """One GPU a training worker."""
    sharded: bool = False
    """Weights, gradients and optimizer state sharded over the training workers (FSDP2), for models too large for one;
    by default each worker holds all of them."""
    recompute: bool = False
    """Activation checkpointing: recompute each block in the backward pass. Less memory, a third more work."""
    micro_batch: Positive | None = None
    """Clips that a training worker holds in memory at once: gradients accumulate over its part of a batch. None: all
    of the part at once."""
    max_failures: Annotated[int, Field(ge=0)] = 1
    """Restarts of a failed training job."""
    trial_cpus: PositiveFloat | None = None
    """CPUs that Ray reserves for a tuning trial; none: as many as `threads`."""
    trial_gpus: NonNegative | None = None
    """GPUs that Ray reserves for a tuning trial; a fraction lets trials share one; none: one with `gpu`, else 0."""
    tune_heartbeat: Positive = 20
    """Seconds between two signs of life of a tuning trial in a shared storage; one that misses six is taken for dead,
    and tried once more."""
    tune_patience: PositiveFloat = 300.0
    """Seconds for which a search waits for a storage that went away."""

    @property
    def most_workers(self) -> int:
        """The largest number of training workers."""
        return self.workers if isinstance(self.workers, int) else self.workers[1]

    @field_validator("workers")
    @classmethod
    def _range(cls, value: int | tuple[int, int]) -> int | tuple[int, int]:
        if isinstance(value, tuple) and value[0] > value[1]:
            raise ValueError(f"from {value[0]} to {value[1]} workers is no range")
        return value


class SonarcConfig(Section):
    """The whole tree."""

    preset: str = "laptop"
    """The preset this tree began as."""
    audio: AudioConfig = AudioConfig()
    data: DataConfig = DataConfig()
    codec: CodecConfig = CodecConfig()
    text: TextConfig = TextConfig()
    dit: DiTConfig = DiTConfig()
    pretrain: PretrainConfig = PretrainConfig()
    retrain: RetrainConfig = RetrainConfig()
    arc: ArcConfig = ArcConfig()
    tune: TuneConfig = TuneConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    gate: GateConfig = GateConfig()
    registry: RegistryConfig = RegistryConfig()
    serve: ServeConfig = ServeConfig()
    compute: ComputeConfig = ComputeConfig()

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.arc.discriminator_depth > self.dit.depth:
            raise ValueError(
                f"arc.discriminator_depth {self.arc.discriminator_depth} exceeds dit.depth {self.dit.depth}"
            )
        tokens = self.audio.samples // self.codec.hop // self.dit.patch
        if self.arc.head.shortest > tokens:
            raise ValueError(
                f"the discriminator's head arc.head needs {self.arc.head.shortest} tokens, "
                f"a clip of {self.audio.samples} samples has {tokens}"
            )
        if self.text.kind == "minilm" and self.text.width != 384:
            raise ValueError(f"text.width {self.text.width} is not MiniLM's 384")
        return self

    def sha256(self) -> str:
        """The hash that names a run with this configuration."""
        return sha256_json(self.model_dump(mode="json"))


def parse(tree: Any) -> SonarcConfig:
    """A config from plain JSON data; errors name the field and the offending value."""
    try:
        return SonarcConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(explain(error), "`sonarc config --fields` explains every field.") from error


def explain(error: ValidationError) -> str:
    """What a document does not fit in: each field, what is wrong, and what was given."""
    problems = []
    for problem in error.errors(include_url=False):
        where = ".".join(str(part) for part in problem["loc"]) or "configuration"
        message = problem["msg"].removeprefix("Value error, ")
        # What stands under an unknown name may be a password.
        hidden = isinstance(problem["input"], dict) or problem["type"] == "extra_forbidden"
        shown = "" if hidden else f" (got {problem['input']!r})"
        problems.append(f"{where}: {message}{shown}")
    return "; ".join(problems) + "."
