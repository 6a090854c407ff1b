"""Distributions of noise levels in (0, 1), by name; 1 is pure noise.

`logit_normal`: t = sigmoid(N(mean, std)) (Stable Diffusion 3, arXiv 2403.03206).
`truncated_logit_normal`: 1 − u, u a logit-normal cut to [0.075, 1) and stretched to [0, 1), as Stable Audio Open
Small was pre-trained.
`logsnr_uniform`: logSNR uniform, t = sigmoid(−logSNR): the generator's levels in ARC.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sonarc.contracts.config import NoiseConfig
from sonarc.contracts.errors import ConfigError

TRUNCATION = 0.075
"""Lower end of the truncated logit-normal, before it is stretched."""


def sample_noise_levels(config: NoiseConfig, count: int, generator: torch.Generator) -> Tensor:
    """Draw `count` noise levels `t_B`, float32, strictly inside (0, 1).

    Raises:
        ConfigError: an empty range of logSNR.
    """
    if config.name == "uniform":
        t_B = _uniform(count, generator)
    elif config.name == "logit_normal":
        t_B = torch.sigmoid(_normal(config, count, generator))
    elif config.name == "truncated_logit_normal":
        t_B = 1 - _truncated(config, count, generator)
    elif config.name == "mixture":
        chosen_B = _uniform(count, generator) < config.share
        t_B = torch.where(chosen_B, torch.sigmoid(_normal(config, count, generator)), _uniform(count, generator))
    else:
        if config.logsnr_min >= config.logsnr_max:
            raise ConfigError(
                f"The range of logSNR [{config.logsnr_min}, {config.logsnr_max}] is empty.",
                "Set logsnr_min below logsnr_max.",
            )
        span = config.logsnr_max - config.logsnr_min
        t_B = torch.sigmoid(-(config.logsnr_min + span * _uniform(count, generator)))
    tiny = torch.finfo(torch.float32).eps
    return t_B.clamp(tiny, 1 - tiny)


def _uniform(count: int, generator: torch.Generator) -> Tensor:
    return torch.rand(count, generator=generator)


def _normal(config: NoiseConfig, count: int, generator: torch.Generator) -> Tensor:
    return config.mean + config.std * torch.randn(count, generator=generator)


def _truncated(config: NoiseConfig, count: int, generator: torch.Generator) -> Tensor:
    """Logit-normal on [TRUNCATION, 1) by its inverse distribution function, stretched to [0, 1)."""
    lowest = (math.log(TRUNCATION / (1 - TRUNCATION)) - config.mean) / config.std
    floor = 0.5 * (1 + math.erf(lowest / math.sqrt(2)))
    quantile_B = floor + (1 - floor) * _uniform(count, generator).double()
    normal_B = torch.special.ndtri(quantile_B.clamp(1e-12, 1 - 1e-12))
    cut_B = torch.sigmoid(config.mean + config.std * normal_B).float()
    return (cut_B - TRUNCATION) / (1 - TRUNCATION)
