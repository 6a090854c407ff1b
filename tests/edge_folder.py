"""An exported tiny package, and what PyTorch in float32 makes of the same prompt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tiny_package import make_package

from sonarc.codec.spectral import SpectralCodec
from sonarc.dit import Conditioning
from sonarc.edge.export import export_onnx
from sonarc.edge.manifest import Precision
from sonarc.runtime.generate import silence_latent, true_frames
from sonarc.runtime.package import load_model
from sonarc.samplers import sample_generator
from sonarc.text.minilm import MiniLM


def export_tiny(folder: Path, *precisions: Precision) -> tuple[str, Path]:
    """A tiny package's URI, and the folder it was exported to."""
    uri, _ = make_package(folder)
    export_onnx(uri, folder / "edge", precisions)
    return uri, folder / "edge"


@torch.no_grad()
def in_float32(package_uri: str, prompt: str, seconds: float, seed: int, steps: int) -> NDArray[np.float32]:
    """A clip `(A, S)` without any bfloat16, and not turned down."""
    package = load_model(package_uri)
    codec, patch = package.codec, package.settings.dit.patch
    assert isinstance(codec, SpectralCodec)
    samples = round(seconds * codec.sample_rate)
    cond = Conditioning(MiniLM()([prompt]), torch.tensor([seconds]))
    mask_BT = torch.ones(1, true_frames(samples, codec, patch), dtype=torch.bool)
    z_BCT = sample_generator(package.model, cond, [seed], mask_BT, steps=steps)
    whole_BCT = silence_latent(codec)[None, :, None].repeat(
        1, 1, true_frames(package.settings.audio.samples, codec, patch)
    )
    whole_BCT[:, :, : z_BCT.shape[2]] = z_BCT
    audio_BAS = codec.synthesize(codec.decoder(whole_BCT * codec.latent_std + codec.latent_mean))
    return audio_BAS[0, :, :samples].numpy()
