"""Evaluation, gate and registry."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from sonarc.contracts.config.base import Finite, NonNegative, Positive, Section


class SamplerConfig(Section):
    steps: Positive = 4
    """Network evaluations a clip."""
    cfg: NonNegative = 1.0
    """Classifier-free guidance scale; 1 is none."""


EmbedderName = Annotated[str, Field(pattern=r"^(yamnet|aisfx|hub:.+|onnx:.+)$")]


def space_of(embedder: str) -> str:
    """Name of an embedder's space, by which metrics are called: `hub:laion/clap-fused` gives `clap_fused`."""
    last = embedder.partition(":")[2].rstrip("/").removesuffix(".onnx").rpartition("/")[2] or embedder
    return re.sub(r"[^a-z0-9]+", "_", last.lower()).strip("_")


class EvaluateConfig(Section):
    reference: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")] = "ref-v1"
    """Name of the pinned reference set; the first run on a store pins it, no later one remakes it."""
    embedders: tuple[EmbedderName, ...] = ("aisfx", "yamnet")
    """Embedding spaces of the Fréchet distance; the first one is the main one. Beside `aisfx` and `yamnet`:
    `hub:<folder or id>`, a CLAP or an audio classifier of transformers; `onnx:<file>`, any network of waveforms."""
    clap: str = "clap-v1"
    """Audio-text model: a shipped in-domain CLAP by name, the location of its folder, or a CLAP of transformers,
    `hub:<folder or id>`."""
    clips: Annotated[int, Field(ge=8)] = 128
    """Clips generated a row, prompts from the test split (each clip once before any comes again)."""
    base: tuple[SamplerConfig, ...] = (
        SamplerConfig(steps=50, cfg=2.5),
        SamplerConfig(steps=8, cfg=2.5),
        SamplerConfig(steps=4, cfg=1.5),
        SamplerConfig(steps=4, cfg=2.5),
        SamplerConfig(steps=4, cfg=4.0),
    )
    """Samplings of the base model."""
    generator: tuple[Positive, ...] = (8, 4, 2, 1)
    """Step counts of the generator."""
    diversity_prompts: Positive = 8
    """Prompts for conditional diversity."""
    diversity_samples: Annotated[int, Field(ge=2)] = 4
    """Generations a prompt for conditional diversity."""
    bootstrap: Annotated[int, Field(ge=50)] = 200
    """Resamples behind each interval."""
    sample_prompts: Positive = 12
    """Held-out prompts whose audio is kept."""
    seed: Annotated[int, Field(ge=0)] = 1_000

    @property
    def spaces(self) -> tuple[str, ...]:
        """Names of the embedding spaces."""
        return tuple(space_of(name) for name in self.embedders)

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if not self.embedders or len(set(self.spaces)) != len(self.spaces):
            raise ValueError(f"the embedding spaces {', '.join(self.spaces) or '(none)'} need names of their own")
        return self


class GateRule(Section):
    """`metric` of `model` at `steps` must be on the right side of a bound."""

    metric: str
    """Name of a score, such as `fd_yamnet`, `adherence`, `silent_fraction`."""
    steps: Positive = 4
    """The generator's step count the rule looks at."""
    versus: Literal["absolute", "base", "champion"] = "absolute"
    """`absolute`: the value itself; else its difference to the base's best at equal steps, or to the champion's."""
    side: Literal["below", "above"] = "below"
    """Which side of the bound passes."""
    bound: Finite = 0.0
    """The bound; for a difference: 0 is equal."""
    relative: bool = False
    """Whether a difference is judged as a share of the other's value: a bound of -0.05 asks for 5 % less."""
    use_interval: bool = False
    """Whether the whole interval, not only the value, must be on that side."""

    @model_validator(mode="after")
    def _relative_to_something(self) -> Self:
        if self.relative and self.versus == "absolute":
            raise ValueError(f"a relative bound on {self.metric!r} needs versus=base or versus=champion")
        return self


class GateConfig(Section):
    rules: tuple[GateRule, ...] = (
        GateRule(metric="fd_aisfx", versus="base", side="below", use_interval=True),
        GateRule(metric="fd_yamnet", versus="base", side="below", bound=20.0),
        GateRule(metric="silent_fraction", side="below", bound=0.01),
        GateRule(metric="fd_aisfx", versus="champion", side="below", bound=20.0),
    )
    """Every rule must hold. Rules against the champion are skipped while there is none."""


class RegistryConfig(Section):
    model: str = "sonarc"
    """Registered model of the generator packages."""
    base_model: str = "sonarc-base"
    """Registered model of the pre-trained bases."""
    alias: str = "champion"
    """Alias that the endpoint serves."""
    arrival: str | None = None
    """Alias that a model gets which passed the gate, once there is a champion; none: `alias` itself, at once. With
    `serve.candidate_alias` the endpoint tries it on canary and shadow traffic first; `sonarc models promote` does the
    rest."""
