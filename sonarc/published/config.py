"""A published `model_config.json` as sections of our configuration.

Whatever shapes the network is checked: an option that we do not have is refused by name, never ignored. What
concerns training or a demo is not read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from sonarc.codec.config import OobleckCodecConfig
from sonarc.contracts.config import AudioConfig, CodecConfig, DiTConfig, TextConfig
from sonarc.contracts.errors import ConfigError

FF_MULT = 4
"""Feed-forward expansion, which published configurations leave at its default."""
T5_WIDTHS = {"small": 512, "base": 768, "large": 1024}
"""Width of the token states by the last part of a T5's name."""
HINT = "Only the architecture of Stable Audio Open Small, at any size, can be imported."

M = TypeVar("M", bound=BaseModel)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Attention(_Strict):
    qk_norm: Literal["ln"]


class _Transformer(_Strict):
    io_channels: int
    embed_dim: int
    depth: int
    num_heads: int
    cond_token_dim: int
    global_cond_dim: int
    project_cond_tokens: Literal[True] = True
    project_global_cond: Literal[True] = True
    patch_size: Literal[1] = 1
    transformer_type: Literal["continuous_transformer"] = "continuous_transformer"
    global_cond_type: Literal["prepend"] = "prepend"
    timestep_cond_type: Literal["global"] = "global"
    attn_kwargs: _Attention


class _Coder(_Strict):
    in_channels: int = 2
    out_channels: int = 2
    channels: int
    c_mults: tuple[int, ...]
    strides: tuple[int, ...]
    latent_dim: int
    use_snake: Literal[True]
    antialias_activation: Literal[False] = False
    use_nearest_upsample: Literal[False] = False
    final_tanh: Literal[False]


class _EncoderShape(_Coder):
    final_tanh: Literal[False] = False


class _Prompt(_Strict):
    t5_model_name: str
    max_length: int
    project_out: Literal[False] = False


class _Seconds(_Strict):
    min_val: Literal[0]
    max_val: float


@dataclass(frozen=True)
class PublishedModel:
    """What a published model configuration says, as ours.

    Attributes:
        tree: the document itself, kept for export.
    """

    tree: Mapping[str, Any]
    audio: AudioConfig
    text: TextConfig
    dit: DiTConfig
    codec: OobleckCodecConfig


def read_model_config(path: Path) -> PublishedModel:
    """Read a `model_config.json`.

    Raises:
        ConfigError: it cannot be read, or describes another architecture; the message names the option.
    """
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"Cannot read {path}: {error}.", "Check the path.") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not valid JSON: {error}.", "Download it again.") from error
    return parse_model_config(tree)


def parse_model_config(tree: Any) -> PublishedModel:
    """The sections that a `model_config.json` already read describes.

    Raises:
        ConfigError: as `read_model_config`.
    """
    _expect(tree, "model_type", "diffusion_cond")
    diffusion = _at(tree, "model.diffusion")
    _expect(tree, "model.diffusion.type", "dit")
    objective = _at(tree, "model.diffusion.diffusion_objective")
    if objective not in ("rectified_flow", "rf_denoiser"):
        raise ConfigError(f"model.diffusion.diffusion_objective is {objective!r}, no rectified flow.", HINT)
    _expect(tree, "model.diffusion.cross_attention_cond_ids", ["prompt", "seconds_total"])
    _expect(tree, "model.diffusion.global_cond_ids", ["seconds_total"])
    for unknown in ("input_concat_ids", "prepend_cond_ids"):
        if diffusion.get(unknown):
            raise ConfigError(f"model.diffusion.{unknown} is {diffusion[unknown]!r}.", HINT)
    shape = _parsed(_Transformer, tree, "model.diffusion.config")
    prompt, seconds = _conditioners(tree)
    width = T5_WIDTHS.get(prompt.t5_model_name.rsplit("-", 1)[-1])
    if width is None:
        raise ConfigError(f"The text encoder {prompt.t5_model_name!r} is not known.", f"Known: T5 {list(T5_WIDTHS)}.")
    cond_width = _at(tree, "model.conditioning.cond_dim")
    if not cond_width == shape.cond_token_dim == shape.global_cond_dim:
        raise ConfigError(
            f"model.conditioning.cond_dim {cond_width}, cond_token_dim {shape.cond_token_dim} and global_cond_dim "
            f"{shape.global_cond_dim} differ.",
            HINT,
        )
    try:
        return PublishedModel(
            tree=tree,
            audio=AudioConfig(
                sample_rate=_at(tree, "sample_rate"),
                channels=_at(tree, "audio_channels"),
                samples=_at(tree, "sample_size"),
            ),
            text=TextConfig(kind="t5", path=prompt.t5_model_name, max_tokens=prompt.max_length, width=width),
            dit=DiTConfig(
                latent_channels=shape.io_channels,
                width=shape.embed_dim,
                depth=shape.depth,
                heads=shape.num_heads,
                ff_mult=FF_MULT,
                patch=1,
                cond_width=cond_width,
                global_cond="prepend",
                max_seconds=seconds.max_val,
            ),
            codec=_codec(tree),
        )
    except ValidationError as error:
        raise ConfigError(f"The model configuration is out of range: {_first(error, '')}.", HINT) from error


def _conditioners(tree: Any) -> tuple[_Prompt, _Seconds]:
    entries = _at(tree, "model.conditioning.configs")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ConfigError("model.conditioning.configs is no list of conditioners.", HINT)
    found = {entry.get("id"): entry for entry in entries}
    kinds = {name: entry.get("type") for name, entry in found.items()}
    if kinds != {"prompt": "t5", "seconds_total": "number"}:
        raise ConfigError(f"model.conditioning.configs are {kinds}, not a t5 prompt and a number seconds_total.", HINT)
    return (
        _parsed(_Prompt, found["prompt"], "config", "model.conditioning.configs.prompt"),
        _parsed(_Seconds, found["seconds_total"], "config", "model.conditioning.configs.seconds_total"),
    )


def _codec(tree: Any) -> OobleckCodecConfig:
    where = "model.pretransform"
    _expect(tree, f"{where}.type", "autoencoder")
    _expect(tree, f"{where}.config.bottleneck.type", "vae")
    for side in ("encoder", "decoder"):
        _expect(tree, f"{where}.config.{side}.type", "oobleck")
    encoder = _parsed(_EncoderShape, tree, f"{where}.config.encoder.config")
    decoder = _parsed(_Coder, tree, f"{where}.config.decoder.config")
    if (encoder.c_mults, encoder.strides) != (decoder.c_mults, decoder.strides):
        raise ConfigError("The autoencoder's encoder and decoder differ in c_mults or strides.", HINT)
    if encoder.latent_dim != 2 * decoder.latent_dim:
        raise ConfigError(
            f"The encoder gives {encoder.latent_dim} channels of mean and scale, the decoder reads "
            f"{decoder.latent_dim}.",
            HINT,
        )
    if decoder.latent_dim != (io_channels := _at(tree, "model.diffusion.config.io_channels")):
        raise ConfigError(
            f"The autoencoder has {decoder.latent_dim} latent channels, model.diffusion.config.io_channels is "
            f"{io_channels}.",
            HINT,
        )
    if (hop := math.prod(encoder.strides)) != CodecConfig(kind="oobleck").hop:
        raise ConfigError(f"The autoencoder's strides give {hop} samples a latent frame, not 2,048.", HINT)
    if encoder.latent_dim != encoder.channels:
        raise ConfigError(
            f"The encoder's latent_dim {encoder.latent_dim} is not its channels {encoder.channels}.",
            "diffusers' AutoencoderOobleck holds encoders where both are equal, as published ones are.",
        )
    return OobleckCodecConfig(
        sample_rate=_at(tree, "sample_rate"),
        channels=encoder.in_channels,
        latent_channels=decoder.latent_dim,
        encoder_width=encoder.channels,
        decoder_width=decoder.channels,
        multiples=encoder.c_mults,
        strides=encoder.strides,
    )


def _at(tree: Any, path: str) -> Any:
    """The value at a dotted path."""
    node = tree
    for part in path.split("."):
        if not isinstance(node, dict) or part not in node:
            raise ConfigError(f"The model configuration has no {path}.", HINT)
        node = node[part]
    return node


def _expect(tree: Any, path: str, value: object) -> None:
    found = _at(tree, path)
    if found != value:
        raise ConfigError(f"{path} is {found!r}, not {value!r}.", HINT)


def _parsed(kind: type[M], tree: Any, path: str, shown: str = "") -> M:
    try:
        return kind.model_validate(_at(tree, path))
    except ValidationError as error:
        where = f"{shown}.{path}" if shown else path
        raise ConfigError(f"{_first(error, where)}.", HINT) from error


def _first(error: ValidationError, where: str) -> str:
    problem = error.errors(include_url=False)[0]
    path = ".".join(part for part in (where, *(str(part) for part in problem["loc"])) if part)
    return f"{path}: {problem['msg']} (got {problem['input']!r})"
