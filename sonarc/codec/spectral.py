"""The default codec: a variational autoencoder on the short-time spectrum.

Audio is turned into mid and side, then into a spectrum. A ConvNeXt encoder reads its compressed magnitudes,
and the phases of its low bins, and gives latents at 43 Hz; a ConvNeXt decoder predicts the *magnitude* and the
*phase* of every bin apart, and an inverse transform makes the audio. A regressed complex value shrinks towards
zero wherever its phase cannot be known; a magnitude predicted apart does not.

Source: the head follows Vocos (Siuzdak, 2023); the variational part Kingma & Welling (2014).
Shapes: B batch, A = 2 audio channels, S samples, N spectrum frames, F bins, T latent frames, C latent channels,
D width.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from sonarc.codec.config import SpectralCodecConfig
from sonarc.codec.convnext import ConvNeXtBlock
from sonarc.codec.stft import absolute, istft, mid_side, stft
from sonarc.contracts.errors import ModelInputError

COMPRESSION = 0.3  # exponent that brings magnitudes of 100 dB range to comparable size
FLOOR = 1e-4  # -80 dB: quieter bins count as silence
MEDIUM = 1e-3  # a magnitude in the middle of the range, where the encoder's log-magnitudes have their zero
CPU_BATCH = 4  # clips computed at once on a CPU: more leave its caches, and take up to three times as long a clip
_PHASE_FLOOR = 1e-3  # keeps a phase of length 0 from dividing by it
_LOG_LIMIT = 6.0  # largest predicted log-magnitude: e^6 is far above full scale


@dataclass(frozen=True)
class Spectrum:
    """A predicted spectrum of mid and side: `log_magnitude` and the unit vector of its phase, `(B, A, N, F)`."""

    log_magnitude: Tensor
    cos: Tensor
    sin: Tensor

    def complex(self) -> Tensor:
        magnitude = self.log_magnitude.exp()
        return torch.complex(magnitude * self.cos, magnitude * self.sin)


def spectral_features(spectrum_BANF: Tensor, phase_bins: int) -> Tensor:
    """What the encoder reads of each frame, `(B, N, A · (F + 2 · phase_bins))`.

    Of each channel: log-magnitudes of all bins, then real and imaginary parts of the lowest with their magnitude
    compressed.
    """
    magnitude = absolute(spectrum_BANF)
    low = spectrum_BANF[..., :phase_bins]
    scale = magnitude[..., :phase_bins].clamp_min(1e-6).pow(COMPRESSION - 1.0)
    level = ((magnitude + FLOOR) / MEDIUM).log()
    features = torch.cat([level, low.real * scale, low.imag * scale], dim=-1)
    return features.transpose(1, 2).flatten(2)


def join(x_BND: Tensor, count: int) -> Tensor:
    """Lay `count` neighbouring frames side by side: `(B, N, D)` to `(B, N / count, count · D)`."""
    batch, frames, width = x_BND.shape
    return x_BND.reshape(batch, frames // count, count * width)


def part(x_BND: Tensor, count: int) -> Tensor:
    """The inverse of `join`."""
    batch, frames, width = x_BND.shape
    return x_BND.reshape(batch, frames * count, width // count)


class _Blocks(nn.Sequential):
    def __init__(self, count: int, c: SpectralCodecConfig) -> None:
        super().__init__(*(ConvNeXtBlock(c.dim, c.expansion, c.kernel, 1, 1 / (count + 1)) for _ in range(count)))


class Encoder(nn.Module):
    """Spectrum of mid and side to the posterior's mean and log-variance."""

    def __init__(self, config: SpectralCodecConfig) -> None:
        super().__init__()
        self.config = c = config
        self.embed = nn.Linear(2 * c.patch * (c.bins + 2 * c.phase_bins), c.dim)
        self.merge = nn.Linear(c.dim * c.stride, c.dim)
        self.blocks = _Blocks(c.encoder_blocks, c)
        self.posterior = nn.Linear(c.dim, 2 * c.latent_channels)
        with torch.no_grad():  # start nearly without noise: a decoder that cannot hear the latents ignores them
            self.posterior.bias[c.latent_channels :] = -5.0
            self.posterior.weight[c.latent_channels :] *= 0.1

    def forward(self, spectrum_BANF: Tensor) -> tuple[Tensor, Tensor]:
        c = self.config
        x_BNE = spectral_features(spectrum_BANF, c.phase_bins)
        fine_BMD = self.embed(join(x_BNE, c.patch))
        x_BTD = self.blocks(self.merge(join(fine_BMD, c.stride)))
        mean, log_var = self.posterior(x_BTD).float().transpose(1, 2).chunk(2, dim=1)
        return mean, log_var.clamp(-12.0, 4.0)


class Decoder(nn.Module):
    """Latents to the magnitude and phase of mid and side."""

    def __init__(self, config: SpectralCodecConfig) -> None:
        super().__init__()
        self.config = c = config
        self.embed = nn.Linear(c.latent_channels, c.dim)
        self.blocks = _Blocks(c.decoder_blocks, c)
        self.split = nn.Linear(c.dim, c.dim * c.stride)
        self.fine_blocks = _Blocks(c.fine_blocks, c)
        self.head = nn.Linear(c.dim, c.patch * 2 * 3 * c.bins)

    def forward(self, z_BCT: Tensor) -> Spectrum:
        log_magnitude, real, imag = self._head(z_BCT)
        norm = (real.square() + imag.square() + _PHASE_FLOOR).rsqrt()
        return Spectrum(log_magnitude.clamp(max=_LOG_LIMIT), real * norm, imag * norm)

    def complex_spectrum(self, z_BCT: Tensor) -> Tensor:
        """`forward(z).complex()` without a graph, in a third of its passes over memory: what decoding is made of."""
        log_magnitude, real, imag = self._head(z_BCT)
        scale = (real * real).addcmul_(imag, imag).add_(_PHASE_FLOOR).rsqrt_()
        scale *= log_magnitude.clamp_(max=_LOG_LIMIT).exp_()
        spectrum = torch.empty(*scale.shape, 2, device=scale.device)
        torch.mul(real, scale, out=spectrum[..., 0])
        torch.mul(imag, scale, out=spectrum[..., 1])
        return torch.view_as_complex(spectrum)

    def _head(self, z_BCT: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-magnitude and the unnormalised parts of the phase, each `(B, A, N, F)`."""
        c = self.config
        x_BTD = self.blocks(self.embed(z_BCT.transpose(1, 2)))
        fine_BMD = self.fine_blocks(part(self.split(x_BTD), c.stride))
        out = part(self.head(fine_BMD), c.patch).float()
        log_magnitude, real, imag = out.reshape(*out.shape[:2], 2, 3, c.bins).permute(3, 0, 2, 1, 4)
        return log_magnitude, real, imag


class SpectralCodec(nn.Module):
    """Stereo audio to latents and back; see `sonarc.codec.interface.Codec`."""

    channels = 2
    DECODER = "decoder."
    """How the names of the decoder's tensors begin."""

    def __init__(self, config: SpectralCodecConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        # Set once after training, so that latents come out standardised.
        self.register_buffer("latent_mean", torch.zeros(config.latent_channels, 1))
        self.register_buffer("latent_std", torch.ones(config.latent_channels, 1))
        self.latent_mean: Tensor
        self.latent_std: Tensor
        # Behind a tuple, so that it is no submodule: it is not stored and not trained.
        self._halved: tuple[tuple[int, torch.device], Decoder] | None = None

    @property
    def sample_rate(self) -> int:
        return self.config.sample_rate

    @property
    def latent_channels(self) -> int:
        return self.config.latent_channels

    @property
    def hop(self) -> int:
        return self.config.hop

    @property
    def reach(self) -> int:
        c = self.config
        fine = c.fine_blocks * (c.kernel // 2) + -(-c.n_fft // (c.stft_hop * c.patch))
        return c.decoder_blocks * (c.kernel // 2) + -(-fine // c.stride)

    @property
    def sha256(self) -> str:
        from sonarc.codec.package import codec_sha256

        return codec_sha256(self)

    @property
    def encoder_sha256(self) -> str:
        from sonarc.codec.package import encoder_sha256

        return encoder_sha256(self)

    def frames(self, samples: int) -> int:
        return -(-samples // self.hop)

    def _carrier(self, frames: int) -> Tensor:
        """A unit sinusoid at every bin's centre frequency, `(N, F)`.

        Measured against it, the phase of a steady partial turns by at most an eighth of a cycle from frame to frame
        (at an overlap of 4) and not by an arbitrary angle: slow enough for latents to carry, and a phase that is
        merely constant is a coherent tone already. The carrier repeats every n_fft / stft_hop frames.
        """
        c = self.config
        period = c.n_fft // c.stft_hop
        device = self.latent_mean.device
        turns = torch.outer(torch.arange(period, device=device), torch.arange(c.bins, device=device)) % period
        angle = turns * (2 * math.pi / period)
        cycle = torch.polar(torch.ones_like(angle), angle)
        return cycle.repeat(-(-frames // period), 1)[:frames]

    def spectrum(self, audio_BAS: Tensor) -> Tensor:
        """Complex spectrum `(B, A, N, F)` of mid and side, its phase against the bins' carriers."""
        spectrum = stft(mid_side(audio_BAS), self.config.n_fft, self.config.stft_hop)
        return spectrum * self._carrier(spectrum.shape[-2]).conj()

    def synthesize(self, spectrum: Spectrum) -> Tensor:
        """Audio `(B, A, S)` of a predicted spectrum."""
        return self._audio(spectrum.complex())

    def _audio(self, spectrum_BANF: Tensor) -> Tensor:
        """Audio of a complex spectrum against the bins' carriers."""
        modulated = spectrum_BANF * self._carrier(spectrum_BANF.shape[-2])
        return mid_side(istft(modulated, self.config.n_fft, self.config.stft_hop))

    @torch.no_grad()
    def encode(self, audio_BAS: Tensor) -> Tensor:
        if audio_BAS.ndim != 3 or audio_BAS.shape[1] != self.channels or audio_BAS.shape[2] == 0:
            raise ModelInputError(
                f"The codec takes audio of shape (batch, {self.channels}, samples), not {tuple(audio_BAS.shape)}.",
                "Make it stereo and add a batch dimension.",
            )
        return torch.cat([self._encode(some_BAS) for some_BAS in _portions(audio_BAS)])

    def _encode(self, audio_BAS: Tensor) -> Tensor:
        audio = pad(audio_BAS.float(), (0, -audio_BAS.shape[-1] % self.hop))
        with torch.autocast(audio.device.type, torch.bfloat16):
            mean, _ = self.encoder(self.spectrum(audio))
        z_BCT: Tensor = (mean - self.latent_mean) / self.latent_std
        return z_BCT

    def decode(self, z_BCT: Tensor) -> Tensor:
        if z_BCT.ndim != 3 or z_BCT.shape[1] != self.latent_channels or z_BCT.shape[2] == 0:
            raise ModelInputError(
                f"The codec decodes latents of shape (batch, {self.latent_channels}, frames), "
                f"not {tuple(z_BCT.shape)}.",
                "Use latents of this codec.",
            )
        return torch.cat([self._decode(some_BCT) for some_BCT in _portions(z_BCT)])

    def _decode(self, z_BCT: Tensor) -> Tensor:
        latent = z_BCT.float() * self.latent_std + self.latent_mean
        with torch.autocast(z_BCT.device.type, torch.bfloat16):
            if torch.is_grad_enabled():
                return self.synthesize(self.decoder(latent))
            spectrum = self._halved_decoder().complex_spectrum(latent)
        return self._audio(spectrum)

    def _halved_decoder(self) -> Decoder:
        """The decoder with weights in bfloat16, made once: autocast would cast them at every call."""
        version = (sum(parameter._version for parameter in self.decoder.parameters()), self.latent_mean.device)
        if self._halved is None or self._halved[0] != version:
            with torch.inference_mode(False):
                halved = copy.deepcopy(self.decoder).requires_grad_(False)
                for module in halved.modules():
                    for name, value in list(module.named_parameters(recurse=False)):
                        if isinstance(module, nn.Linear):
                            setattr(module, name, nn.Parameter(value.to(torch.bfloat16), requires_grad=False))
            self._halved = (version, halved)
        return self._halved[1]


def _portions(batch: Tensor) -> tuple[Tensor, ...]:
    return torch.split(batch, CPU_BATCH) if batch.device.type == "cpu" and len(batch) else (batch,)
