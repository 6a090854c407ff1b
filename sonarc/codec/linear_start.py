"""Start the codec at the best linear autoencoder of its features.

From random weights most of a short training goes into finding what principal component analysis gives in closed
form. So the encoder's linear layers start as a whitening of the frames' features and of their pairs, the decoder's as
the inverse, and the residual blocks between them learn what is not linear.

Shapes: B batch, N frames, E features a frame, D width, T latent frames.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from sonarc.codec.spectral import MEDIUM, SpectralCodec, join, spectral_features


def _principal(x: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, `count` principal directions as columns, and the deviation along each, of rows `x`.

    By subspace iteration (Halko et al., 2011): seconds where a full decomposition takes minutes.
    """
    mean = x.mean(0)
    centred = x - mean
    covariance = centred.T @ centred / len(x)
    keep = min(count, x.shape[1])
    generator = torch.Generator().manual_seed(0)
    basis = torch.randn(x.shape[1], min(keep + 16, x.shape[1]), generator=generator)
    for _ in range(6):
        basis = torch.linalg.qr(covariance @ basis).Q
    values, vectors = torch.linalg.eigh(basis.T @ covariance @ basis)
    return mean, (basis @ vectors).flip(1)[:, :keep], values.flip(0)[:keep].clamp_min(1e-6).sqrt()


def _importance(codec: SpectralCodec) -> Tensor:
    """Weight of each feature `(E,)` in what "best" means: low bins over high ones, and low phases most."""
    c = codec.config
    hertz = torch.arange(c.bins) * c.sample_rate / c.n_fft
    magnitude = (1.0 + hertz / 2000.0) ** -0.5
    phase = PHASE_WEIGHT / (1.0 + (hertz[: c.phase_bins] / 1000.0) ** 2)
    return torch.cat([magnitude, phase, phase]).repeat(2)


def _zero_levels(codec: SpectralCodec) -> Tensor:
    """What to add to each feature to get the log-magnitude, or the part of the phase, that the head gives."""
    c = codec.config
    channel = torch.zeros(c.bins + 2 * c.phase_bins)
    channel[: c.bins] = math.log(MEDIUM)
    return channel.repeat(2 * c.patch)


PHASE_WEIGHT = 4.0  # of a compressed real or imaginary part, against a log-magnitude in nepers


@torch.no_grad()
def start_linear(codec: SpectralCodec, audio: Iterable[Tensor]) -> None:
    """Set the codec's linear layers from principal components of `audio`, batches `(B, 2, S)`."""
    c, encoder, decoder = codec.config, codec.encoder, codec.decoder
    features = torch.cat([spectral_features(codec.spectrum(batch), c.phase_bins) for batch in audio])
    weight = _importance(codec).repeat(c.patch)
    frames_BME = join(features, c.patch) * weight
    flat = frames_BME.flatten(0, 1)
    mean, directions, deviation = _principal(flat, c.dim)
    width = len(deviation)
    scores_BMD = torch.zeros(*frames_BME.shape[:2], c.dim)
    scores_BMD[..., :width] = (frames_BME - mean) @ directions
    # Frame: features to unit-variance scores, and back.
    encoder.embed.weight.zero_()
    encoder.embed.bias.zero_()
    encoder.embed.weight[:width] = (directions / deviation).T * weight
    encoder.embed.bias[:width] = -(mean @ (directions / deviation))
    back, centre = directions * deviation / weight[:, None], mean / weight
    centre = centre + _zero_levels(codec)
    head = decoder.head.weight.view(c.patch, 2, 3, c.bins, c.dim)
    bias = decoder.head.bias.view(c.patch, 2, 3, c.bins)
    head.normal_(std=0.02)
    back = back.view(c.patch, 2, c.bins + 2 * c.phase_bins, width)
    centre = centre.view(c.patch, 2, c.bins + 2 * c.phase_bins)
    head[:, :, 0] = 0.0
    head[:, :, 0, :, :width] = back[:, :, : c.bins]
    bias[:, :, 0] = centre[:, :, : c.bins]
    for i, first in ((1, c.bins), (2, c.bins + c.phase_bins)):
        head[:, :, i, : c.phase_bins] = 0.0
        head[:, :, i, : c.phase_bins, :width] = back[:, :, first : first + c.phase_bins]
    # Bins whose phase no feature holds start at random constant phases, not all aligned in a pulse.
    angle = torch.rand(2, c.bins) * 2 * torch.pi
    bias[:, :, 1], bias[:, :, 2] = angle.cos(), angle.sin()
    bias[:, :, 1:, : c.phase_bins] = 0.0
    # Latent frame: `stride` frames' scores to the leading components, and back.
    unit = torch.ones(c.dim)
    unit[:width] = deviation
    unit = unit.repeat(c.stride)
    _, directions, deviation = _principal(join(scores_BMD, c.stride).flatten(0, 1), c.dim)
    encoder.merge.weight.copy_((directions / deviation).T * unit)
    encoder.merge.bias.zero_()
    decoder.split.weight.copy_(directions * deviation / unit[:, None])
    decoder.split.bias.zero_()
    # The latents are the first components.
    latents = min(c.latent_channels, c.dim)
    encoder.posterior.weight[: c.latent_channels] = 0.0
    encoder.posterior.bias[: c.latent_channels] = 0.0
    encoder.posterior.weight[:latents, :latents] = torch.eye(latents)
    decoder.embed.weight.zero_()
    decoder.embed.bias.zero_()
    decoder.embed.weight[:latents, :latents] = torch.eye(latents)
