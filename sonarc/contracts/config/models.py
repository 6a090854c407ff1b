"""Codec, text encoder and DiT."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from sonarc.contracts.config.base import Positive, PositiveFloat, Section


class CodecConfig(Section):
    kind: Literal["spectral", "oobleck"] = "spectral"
    """`spectral`: ours, fast on a CPU. `oobleck`: diffusers' AutoencoderOobleck."""
    uri: str = "codec-v3"
    """A codec shipped with Sonarc by name, or the location of a codec folder."""
    batch: Positive = 16
    """Clips encoded at once."""

    @property
    def hop(self) -> int:
        """Audio samples per latent frame."""
        return {"spectral": 1024, "oobleck": 2048}[self.kind]


class TextConfig(Section):
    kind: Literal["minilm", "t5"] = "minilm"
    """`minilm`: from its installed package. `t5`: a transformers T5 encoder by local path or hub id."""
    path: str = ""
    """Local path or hub id of the encoder; empty: the installed MiniLM package."""
    max_tokens: Annotated[int, Field(ge=4, le=512)] = 32
    """Longest prompt, tokens; the rest is cut."""
    width: Positive = 384
    """Width of the encoder's token states."""
    precision: Literal["bfloat16", "float32"] = "bfloat16"
    """MiniLM's matrix products. bfloat16 takes a third of the time and moves states by 1 %; T5 is always float32."""


class DiTConfig(Section):
    latent_channels: Positive = 64
    """Channels of the codec's latents."""
    width: Annotated[int, Field(multiple_of=8)] = 256
    """Width of the residual stream."""
    depth: Positive = 6
    """Transformer blocks."""
    heads: Positive = 4
    """Attention heads; the head's width is width / heads."""
    ff_mult: Positive = 3
    """Feed-forward expansion (of each of the two GLU branches)."""
    patch: Positive = 4
    """Latent frames joined into one token."""
    cond_width: Positive = 384
    """Width of the conditioning sequence that cross-attention reads."""
    global_cond: Literal["prepend", "adaln"] = "adaln"
    """How time, duration (and pooled text) steer the blocks: a prepended token (Stable Audio Open Small) or AdaLN."""
    max_seconds: PositiveFloat = 256.0
    """Durations are embedded as seconds / max_seconds, clamped to [0, 1]."""

    @model_validator(mode="after")
    def _heads(self) -> Self:
        if self.width % self.heads or (self.width // self.heads) % 8:
            raise ValueError(f"width {self.width} does not split into {self.heads} heads of a multiple of 8")
        return self
