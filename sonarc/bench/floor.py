"""What a GPU could do at the very best with a model, by arithmetic alone: nothing here is measured.

python -m sonarc.bench.floor   prints it for an H100
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sonarc.bench.inference import SAOS_SECONDS, STEPS, operations
from sonarc.contracts.config import SonarcConfig
from sonarc.contracts.presets import load

if TYPE_CHECKING:
    from sonarc.codec.interface import Codec


@dataclass(frozen=True)
class Peak:
    """A processor's data sheet.

    Attributes:
        flops: dense bfloat16 operations a second.
        bandwidth: bytes a second from its memory.
    """

    flops: float
    bandwidth: float


H100 = Peak(990e12, 3.35e12)
"""NVIDIA H100 SXM."""


@dataclass(frozen=True)
class Floor:
    """Least milliseconds of one clip.

    Attributes:
        step, decode: one evaluation of the DiT, and decoding: the larger of arithmetic and reading the weights once.
        clip: all steps and decoding.
    """

    step: float
    decode: float
    clip: float


@dataclass(frozen=True)
class Work:
    """What one clip asks for.

    Attributes:
        steps: evaluations of the DiT.
        step, decode: operations of one evaluation, and of decoding.
        step_bytes, decode_bytes: of the weights that each reads, in bfloat16.
    """

    steps: int
    step: int
    decode: int
    step_bytes: int
    decode_bytes: int


def floor(work: Work, peak: Peak = H100) -> Floor:
    """The floor of some work on a processor."""
    step = max(work.step / peak.flops, work.step_bytes / peak.bandwidth)
    decode = max(work.decode / peak.flops, work.decode_bytes / peak.bandwidth)
    return Floor(1e3 * step, 1e3 * decode, 1e3 * (work.steps * step + decode))


def work_of(config: SonarcConfig, codec: Codec, seconds: float, steps: int) -> Work:
    """The work of one clip of a model.

    Args:
        codec: what it decodes with, on the CPU.
    """
    import torch
    from torch import nn

    from sonarc.dit import DiT

    decode, step = operations(config, codec, seconds)
    with torch.device("meta"):
        model = DiT(config.dit, config.text.width)
    # Conditioning and cross-attention's keys and values are computed once a request.
    once = ("to_cond_embed", "to_global_embed", "to_pooled_embed", "conditioners", "to_kv")
    read = sum(p.numel() for name, p in model.named_parameters() if not any(part in name for part in once))
    assert isinstance(codec, nn.Module)
    decoder = str(getattr(codec, "DECODER", ""))
    decoded = sum(p.numel() for name, p in codec.named_parameters() if name.startswith(decoder))
    return Work(steps, step, decode, 2 * read, 2 * decoded)


def main() -> None:
    """Print both models' floors."""
    import torch

    from sonarc.codec.config import OobleckCodecConfig
    from sonarc.codec.oobleck import OobleckCodec
    from sonarc.codec.package import load_codec

    torch.manual_seed(0)
    default, saos = load("laptop"), load("saos")
    for name, config, codec, seconds in (
        ("default", default, load_codec(default.codec.uri), default.audio.seconds),
        ("saos", saos, OobleckCodec(OobleckCodecConfig()).eval(), SAOS_SECONDS),
    ):
        work = work_of(config, codec, seconds, STEPS[name])
        least = floor(work)
        print(
            f"{name}, {seconds:.2f} s, {work.steps} steps: step {work.step / 1e9:.1f} GFLOP, "
            f"{work.step_bytes / 1e6:.1f} MB, ≥ {least.step:.4f} ms; decoding {work.decode / 1e9:.1f} GFLOP, "
            f"{work.decode_bytes / 1e6:.1f} MB, ≥ {least.decode:.4f} ms; clip ≥ {least.clip:.3f} ms, "
            f"{seconds / least.clip * 1e3:,.0f} s/s"
        )


if __name__ == "__main__":
    main()
