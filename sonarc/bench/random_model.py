"""Models with random weights in shapes that matter, for benchmarks: a speed does not depend on what was learnt."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sonarc.contracts.config import SonarcConfig

if TYPE_CHECKING:
    from sonarc.codec.interface import Codec

SPREAD = 0.02
"""Deviation of the weights: about that of trained ones, so that no value overflows or vanishes."""


def random_checkpoint(folder: Path, config: SonarcConfig, codec: Codec, seed: int = 0) -> str:
    """A generator's checkpoint below `folder`, of the shape that `config` gives; returns its location.

    Args:
        codec: what its latents are of; it lies at `config.codec.uri`.
    """
    import torch

    from sonarc.checkpoint import save_checkpoint, sections
    from sonarc.dit import DiT

    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        shape = DiT(config.dit, config.text.width).state_dict()
    tensors = {name: torch.randn(t.shape, generator=generator) * SPREAD for name, t in shape.items()}
    for name in tensors:
        if name.endswith(("gamma", "norm.weight")):
            tensors[name] += 1
    uri, _ = save_checkpoint(
        folder.as_uri(),
        kind="generator",
        step=1,
        attempt=1,
        position=0,
        model=tensors,
        config=sections(config).model_dump(mode="json"),
        config_sha256=config.sha256(),
        lineage={"encoder_sha256": codec.encoder_sha256},
    )
    return uri


def random_saos(folder: Path, config: SonarcConfig) -> str:
    """Stable Audio Open Small's DiT, autoencoder and text encoder below `folder`; the checkpoint's location.

    Args:
        config: the preset `saos`, at any size.
    """
    import torch

    from sonarc.codec.config import OobleckCodecConfig
    from sonarc.codec.oobleck import OobleckCodec
    from sonarc.codec.package import save_codec

    torch.manual_seed(0)
    codec = OobleckCodec(OobleckCodecConfig()).eval().requires_grad_(False)
    where = (folder / "codec").as_uri()
    save_codec(codec, where, "")
    random_t5(folder / "t5", config.text.width)
    text = config.text.model_copy(update={"path": str(folder / "t5")})
    placed = config.model_copy(update={"text": text, "codec": config.codec.model_copy(update={"uri": where})})
    return random_checkpoint(folder / "checkpoint", placed, codec)


def random_t5(folder: Path, width: int) -> None:
    """A T5 encoder of the base size and a tokenizer that knows letters, as transformers keeps them."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

    config: Any = T5Config(d_model=width, d_kv=64, d_ff=4 * width, num_layers=12, num_heads=width // 64)
    T5EncoderModel(config).save_pretrained(folder)
    letters = ["<pad>", "<unk>", *"abcdefghijklmnopqrstuvwxyz"]
    tokenizer = Tokenizer(models.WordLevel({letter: i for i, letter in enumerate(letters)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>").save_pretrained(folder)
