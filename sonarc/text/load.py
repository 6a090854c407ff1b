"""The configured text encoder."""

from __future__ import annotations

from pathlib import Path

import torch

from sonarc.contracts.config import TextConfig
from sonarc.contracts.errors import ConfigError
from sonarc.text.encoder import REMEMBERED, TextEncoder


def load_text_encoder(
    config: TextConfig, *, remembered: int = REMEMBERED, device: torch.device | str = "cpu"
) -> TextEncoder:
    """Load the frozen encoder that `config` names; it keeps the states of `remembered` prompts.

    It computes on `device`; the states it gives are on the CPU.

    Raises:
        ConfigError: it cannot be found, or its width is not the configured one.
    """
    encoder: TextEncoder
    if config.kind == "minilm":
        from sonarc.text.minilm import MiniLM

        encoder = MiniLM(
            Path(config.path) if config.path else None,
            max_tokens=config.max_tokens,
            bfloat16=config.precision == "bfloat16",
            remembered=remembered,
            device=device,
        )
    else:
        from sonarc.text.t5 import T5

        if not config.path:
            raise ConfigError("text.kind is t5 and text.path is empty.", "Set text.path to a folder or hub id.")
        encoder = T5(config.path, max_tokens=config.max_tokens, remembered=remembered, device=device)
    if encoder.width != config.width:
        raise ConfigError(
            f"The text encoder's states are {encoder.width} wide, text.width says {config.width}.",
            f"Set text.width={encoder.width}.",
        )
    return encoder
