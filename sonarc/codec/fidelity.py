"""How well a codec keeps its audio: figures on held-out clips, each with its unit.

Shapes: N clips, A audio channels, S samples.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from torch import Tensor

from sonarc.codec.interface import Codec
from sonarc.codec.losses import RESOLUTIONS, power_spectrum
from sonarc.codec.spectral import FLOOR
from sonarc.codec.stft import mid_side

THIRD_OCTAVES = tuple(1000.0 * 2 ** (i / 3) for i in range(-13, 13))
"""Band centres from 50 Hz to 16 kHz, Hz."""


def si_sdr(audio_BAS: Tensor, target_BAS: Tensor) -> Tensor:
    """Scale-invariant signal-to-distortion ratio of each clip over both channels, dB (Le Roux et al., 2019)."""
    x, y = audio_BAS.flatten(1), target_BAS.flatten(1)
    scaled = y * ((x * y).sum(-1) / y.square().sum(-1).clamp_min(1e-12))[:, None]
    noise = (x - scaled).square().sum(-1).clamp_min(1e-12)
    return 10 * (scaled.square().sum(-1).clamp_min(1e-12) / noise).log10()


def log_magnitude_distance(audio_BAS: Tensor, target_BAS: Tensor) -> Tensor:
    """Mean |Δ log magnitude| of each clip over the training resolutions, nepers (1 is 8.7 dB); -80 dB is the floor."""
    distances = []
    for n_fft in RESOLUTIONS:
        got, wanted = power_spectrum(audio_BAS, n_fft), power_spectrum(target_BAS, n_fft)
        gap = 0.5 * ((got + FLOOR**2).log() - (wanted + FLOOR**2).log()).abs()
        distances.append(gap.flatten(1).mean(-1))
    return torch.stack(distances).mean(0)


def third_octave_db(audio_BAS: Tensor, sample_rate: int) -> Tensor:
    """Mean power of each clip in third-octave bands from 50 Hz to 16 kHz, `(N, bands)`, dB."""
    power = power_spectrum(audio_BAS, 4096).mean(dim=(1, 2))
    frequency = torch.linspace(0, sample_rate / 2, power.shape[-1])
    bands = [
        power[:, (frequency >= centre * 2 ** (-1 / 6)) & (frequency < centre * 2 ** (1 / 6))].sum(-1)
        for centre in THIRD_OCTAVES
    ]
    return 10 * (torch.stack(bands, -1) + 1e-10).log10()


def average_spectrum_deviation(audio_BAS: Tensor, target_BAS: Tensor, sample_rate: int) -> Tensor:
    """Reconstructed minus original power of a whole set, by third octave, dB, `(bands,)`."""
    got, wanted = (10 ** (third_octave_db(x, sample_rate) / 10) for x in (audio_BAS, target_BAS))
    return 10 * (got.mean(0).log10() - wanted.mean(0).log10())


def side_energy_db(audio_BAS: Tensor) -> Tensor:
    """Energy of side over mid of each clip, dB; -80 for mono."""
    mid, side = mid_side(audio_BAS).square().mean(-1).unbind(1)
    return 10 * ((side + 1e-8 * mid + 1e-12) / (mid + 1e-12)).log10()


@torch.no_grad()
def reconstruct(codec: Codec, clips_NAS: Tensor, batch: int = 8) -> Tensor:
    """Clips through encoder and decoder, cut to their length."""
    parts = [codec.decode(codec.encode(part)) for part in torch.split(clips_NAS, batch)]
    return torch.cat(parts)[..., : clips_NAS.shape[-1]]


def decode_real_time_factor(codec: Codec, samples: int, repeats: int = 20) -> float:
    """Seconds of audio decoded a second at batch 1: the median of `repeats` decodes of `samples` samples."""
    z_BCT = torch.randn(1, codec.latent_channels, codec.frames(samples), generator=torch.Generator().manual_seed(0))
    codec.decode(z_BCT)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        codec.decode(z_BCT)
        times.append(time.perf_counter() - start)
    return samples / codec.sample_rate / float(np.median(times))


def reconstruction_figures(codec: Codec, clips_NAS: Tensor) -> dict[str, float]:
    """Figures of a codec on clips `(N, A, S)`: medians over clips unless the name says otherwise.

    Returns:
        clips, their number; si_sdr_db; log_magnitude_distance, nepers; spectrum_deviation_max_db and
        spectrum_deviation_mean_db, |Δ| of the set's average spectrum by third octave; side_energy_gap_db, |Δ| on clips
        with side above -40 dB; silent, clipped and not_finite, counts of reconstructions (clipped: a peak above 1 where
        the original has none).
    """
    recon = reconstruct(codec, clips_NAS)
    distances = [
        log_magnitude_distance(a, b) for a, b in zip(torch.split(recon, 16), torch.split(clips_NAS, 16), strict=True)
    ]
    deviation = average_spectrum_deviation(recon, clips_NAS, codec.sample_rate).abs()
    side, wanted_side = side_energy_db(recon), side_energy_db(clips_NAS)
    stereo = wanted_side > -40
    gap = (side - wanted_side).abs()[stereo]
    peak, wanted_peak = recon.abs().amax((1, 2)), clips_NAS.abs().amax((1, 2))
    return {
        "clips": float(len(clips_NAS)),
        "si_sdr_db": float(si_sdr(recon, clips_NAS).median()),
        "log_magnitude_distance": float(torch.cat(distances).median()),
        "spectrum_deviation_max_db": float(deviation.max()),
        "spectrum_deviation_mean_db": float(deviation.mean()),
        "side_energy_gap_db": float(gap.median()) if stereo.any() else 0.0,
        "silent": float((peak < 0.1 * wanted_peak).sum()),
        "clipped": float(((peak > 1.0) & (wanted_peak <= 1.0)).sum()),
        "not_finite": float((~torch.isfinite(recon).flatten(1).all(-1)).sum()),
    }
