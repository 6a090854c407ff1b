"""One typed tree of settings: every field documented with its unit, unknown keys refused.

The defaults are the preset `laptop` without its warm-up; `sonarc.contracts.presets` has the presets, and overrides.
`SonarcConfig.sha256()` names a run.
"""

from __future__ import annotations

from sonarc.contracts.config.base import Finite, Fraction, NonNegative, Positive, PositiveFloat, Section
from sonarc.contracts.config.data import (
    SUBSETS,
    AudioConfig,
    ColumnsConfig,
    DataConfig,
    DemoConfig,
    FetchConfig,
    Layout,
    SourceConfig,
)
from sonarc.contracts.config.evaluation import (
    EmbedderName,
    EvaluateConfig,
    GateConfig,
    GateRule,
    RegistryConfig,
    SamplerConfig,
    space_of,
)
from sonarc.contracts.config.models import CodecConfig, DiTConfig, TextConfig
from sonarc.contracts.config.serving import ServeConfig
from sonarc.contracts.config.training import (
    ArcConfig,
    HeadConfig,
    NoiseConfig,
    NoiseName,
    Objective,
    OdeWarmupConfig,
    PretrainConfig,
    RetrainConfig,
    TuneConfig,
)
from sonarc.contracts.config.tree import ComputeConfig, SonarcConfig, parse

__all__ = [
    "SUBSETS",
    "ArcConfig",
    "AudioConfig",
    "CodecConfig",
    "ColumnsConfig",
    "ComputeConfig",
    "DataConfig",
    "DemoConfig",
    "DiTConfig",
    "EmbedderName",
    "EvaluateConfig",
    "FetchConfig",
    "Finite",
    "Fraction",
    "GateConfig",
    "GateRule",
    "HeadConfig",
    "Layout",
    "NoiseConfig",
    "NoiseName",
    "NonNegative",
    "Objective",
    "OdeWarmupConfig",
    "Positive",
    "PositiveFloat",
    "PretrainConfig",
    "RegistryConfig",
    "RetrainConfig",
    "SamplerConfig",
    "Section",
    "ServeConfig",
    "SonarcConfig",
    "SourceConfig",
    "TextConfig",
    "TuneConfig",
    "parse",
    "space_of",
]
