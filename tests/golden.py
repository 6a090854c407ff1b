"""Golden sounds: what fixed weights make of fixed requests, a few hundred samples of each, kept in `golden.json`.

    python tests/golden.py        # after a change that is meant to change every sound: write the file anew

The weights come from NumPy's generator and the parameters' names, the codec is the shipped one: nothing depends on how
PyTorch initialises. The same seed is the same sound from one release to the next as long as this file stays.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from sonarc.codec.package import load_codec
from sonarc.contracts.config import ArcConfig, AudioConfig, CodecConfig, DiTConfig, SonarcConfig
from sonarc.dit import DiT
from sonarc.runtime.generate import Sampling, generate_audio
from sonarc.runtime.networks import Networks
from sonarc.text.load import load_text_encoder

FILE = Path(__file__).with_suffix(".json")
PROMPTS, SECONDS, SEEDS = ("a kick drum", "a slow fiddle tune in D major"), (0.4, 0.9), (3, 8)
SAMPLES = 40_960
EVERY = 97
"""Every so many samples are kept: a prime, so that no period of the codec is kept from one side only."""
WAYS = {
    "generator, 4 steps": Sampling("generator", 4, precision="float32"),
    "base, 8 steps, guidance 2.5": Sampling("base", 8, 2.5, precision="float32"),
}
Precision = Literal["bfloat16", "float32"]


@dataclass(frozen=True)
class Makers:
    """One model in both its forms."""

    exact: Networks
    fast: Networks
    config: SonarcConfig

    def clips(self, sampling: Sampling, precision: Precision) -> list[np.ndarray]:
        """The answers to all prompts, in one batch."""
        networks = self.exact if precision == "float32" else self.fast
        return generate_audio(
            networks.model, networks.codec, load_text_encoder(self.config.text), PROMPTS, SECONDS, SEEDS,
            Sampling(sampling.kind, sampling.steps, sampling.cfg, precision), clip_samples=SAMPLES,
        )  # fmt: skip


def makers() -> Makers:
    """A small DiT whose weights are the same everywhere, and the shipped codec."""
    config = SonarcConfig(
        audio=AudioConfig(samples=SAMPLES),
        codec=CodecConfig(),
        dit=DiTConfig(width=64, depth=2, heads=2, patch=2, cond_width=64),
        arc=ArcConfig(discriminator_depth=1),
    )
    model = DiT(config.dit, config.text.width)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            drawn = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(tuple(parameter.shape))
            parameter.copy_(torch.from_numpy(0.08 * drawn))
    networks = Networks(model.eval(), load_codec(config.codec.uri))
    return Makers(networks, networks.fast(), config)


def kept(clip: np.ndarray) -> list[list[float]]:
    """What is kept of a clip `(A, S)`: every so many samples, to a millionth of its peak."""
    digits = 6 - int(np.ceil(np.log10(np.abs(clip).max())))
    return [[round(float(x), digits) for x in channel[::EVERY]] for channel in clip]


def found(made: Makers) -> Iterator[tuple[str, list[list[list[float]]]]]:
    """What is kept of every way of sampling."""
    for name, sampling in WAYS.items():
        yield name, [kept(clip) for clip in made.clips(sampling, "float32")]


if __name__ == "__main__":
    FILE.write_text(json.dumps(dict(found(makers()))) + "\n", encoding="utf-8")
