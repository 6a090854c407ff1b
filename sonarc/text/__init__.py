"""Frozen text encoders: prompts → token states."""

from __future__ import annotations

from sonarc.text.encoder import TextEncoder, TextStates, concatenate
from sonarc.text.load import load_text_encoder

__all__ = ["TextEncoder", "TextStates", "concatenate", "load_text_encoder"]
