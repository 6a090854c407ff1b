"""Sonarc's in-domain CLAP: one space for short musical clips and their captions.

An audio tower (a small residual CNN on log-mel) and a text head over frozen MiniLM token states,
trained against each other (`sonarc.metrics.clap_training`) on the train split alone. It measures how
well a clip agrees with its prompt within this project's kind of sound. It is not LAION-CLAP, and its
cosines are not comparable with published CLAP scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional as F

from sonarc.contracts import store
from sonarc.contracts.config import TextConfig
from sonarc.contracts.errors import CheckpointError, ConfigError
from sonarc.contracts.hashing import sha256_bytes, sha256_json
from sonarc.metrics.embedders.interface import Audio, Embeddings, checked, torch_threads
from sonarc.text import TextEncoder, TextStates, load_text_encoder

ASSETS = Path(__file__).resolve().parents[2] / "assets"


class ClapConfig(BaseModel):
    """`config.json`: the shape of a CLAP and the text encoder it reads."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    sample_rate: int = 44_100
    """Samples a second of the audio it takes, Hz."""
    fft: int = 2_048
    """Length of a Hann frame, samples."""
    hop: int = 1_024
    """Samples between frames."""
    mels: int = Field(default=96, multiple_of=16)
    """Mel bands from 40 Hz to half the sample rate."""
    range_db: float = 80.0
    """Levels this far below the clip's loudest band count as silence, dB."""
    widths: tuple[int, ...] = (48, 96, 160)
    """Channels of the tower's stages; each stage after the first halves time and frequency."""
    text_width: int = 384
    """Width of the text encoder's states."""
    text_hidden: int = 256
    """Width of the text head."""
    width: int = 128
    """Dimensions of the shared space."""
    text_encoder: str = "minilm"
    """Kind of the text encoder."""
    text_encoder_sha256: str = ""
    """Hash of the text encoder's weights; with others the head means nothing."""


class ClapNetwork(nn.Module):
    """Both towers; vectors have length 1."""

    def __init__(self, config: ClapConfig) -> None:
        super().__init__()
        self.config = config
        self.audio = AudioTower(config)
        self.text = TextHead(config)
        self.log_scale = nn.Parameter(torch.tensor(float(np.log(1 / 0.07))))

    def scale(self) -> Tensor:
        """Inverse temperature of the contrastive loss, at most 100."""
        return self.log_scale.exp().clamp(max=100.0)


class LogMel:
    """Log-mel level against the clip's loudest band, in [-1, 1]: the clip's own level does not count."""

    def __init__(self, config: ClapConfig) -> None:
        self.config = config
        self.window = torch.hann_window(config.fft)
        self.mel_FM = torch.from_numpy(_mel_matrix(config))

    def __call__(self, audio_BAS: Tensor) -> Tensor:
        """`(B, mels, T)` of audio `(B, A, S)`."""
        config = self.config
        mono_BS = F.pad(audio_BAS.mean(dim=1), (config.fft // 2, config.fft // 2))
        frames_BTF = mono_BS.unfold(1, config.fft, config.hop) * self.window
        power_BTM = torch.fft.rfft(frames_BTF).abs().square() @ self.mel_FM
        loudest = power_BTM.amax(dim=(1, 2), keepdim=True)
        # Below -100 dB full scale there is no sound to measure against.
        level = 10 * torch.log10((power_BTM / loudest.clamp(min=1e-10)).clamp(min=10 ** (-config.range_db / 10)))
        return (1 + 2 * level / config.range_db).transpose(1, 2)


class AudioTower(nn.Module):
    """Log-mel → residual stages → attention and maximum over all positions → unit vector."""

    def __init__(self, config: ClapConfig) -> None:
        super().__init__()
        first, *rest = config.widths
        stages: list[nn.Module] = [nn.Conv2d(1, first, 4, stride=4, bias=False), nn.BatchNorm2d(first), Residual(first)]
        for before, after in zip(config.widths, rest, strict=False):
            stages += [nn.Conv2d(before, after, 2, stride=2, bias=False), nn.BatchNorm2d(after), Residual(after)]
        self.stages = nn.Sequential(*stages)
        self.attention = nn.Conv2d(config.widths[-1], 1, 1)
        self.project = nn.Linear(2 * config.widths[-1], config.width)

    def forward(self, mel_BMT: Tensor) -> Tensor:
        """Unit vectors `(B, width)` of `LogMel` frames."""
        image = mel_BMT[:, None].contiguous(memory_format=torch.channels_last)
        h_BCP = self.stages(image)
        weights_B1P = self.attention(h_BCP).flatten(2).float().softmax(dim=-1)
        h_BCP = h_BCP.flatten(2).float()
        pooled = torch.cat([(h_BCP * weights_B1P).sum(dim=-1), h_BCP.amax(dim=-1)], dim=1)
        return F.normalize(self.project(pooled).float(), dim=-1)


class Residual(nn.Module):
    """ReLU, then x + conv(ReLU(conv(x))), batch-normalised."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape."""
        x = F.relu(x)
        out: Tensor = x + self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return out


class TextHead(nn.Module):
    """Token states → hidden states → attention over the prompt's tokens → unit vector."""

    def __init__(self, config: ClapConfig) -> None:
        super().__init__()
        self.hidden = nn.Sequential(
            nn.LayerNorm(config.text_width), nn.Linear(config.text_width, config.text_hidden), nn.GELU()
        )
        self.attention = nn.Linear(config.text_hidden, 1)
        self.project = nn.Linear(config.text_hidden, config.width)

    def forward(self, states: TextStates) -> Tensor:
        """Unit vectors `(B, width)`."""
        h_BLD = self.hidden(states.tokens_BLE)
        scores_BL = self.attention(h_BLD)[..., 0].float().masked_fill(~states.mask_BL, -1e4)
        pooled = (h_BLD * scores_BL.softmax(dim=-1)[..., None]).sum(dim=1)
        return F.normalize(self.project(pooled).float(), dim=-1)


class Clap:
    """A trained CLAP; as an `Embedder`, its audio tower."""

    name = "clap"

    def __init__(
        self, config: ClapConfig, weights: dict[str, Tensor], sha256: str, encoder: TextEncoder, *, threads: int = 1
    ) -> None:
        self.config, self.sha256, self._encoder, self._threads = config, sha256, encoder, threads
        self.sample_rate, self.width = config.sample_rate, config.width
        self._network = ClapNetwork(config)
        try:
            _load(self._network, weights)
        except RuntimeError as error:
            raise CheckpointError(f"The CLAP does not fit its config: {error}.", "Use the shipped CLAP.") from error
        self._network.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._log_mel = LogMel(config)

    @property
    def parameters(self) -> int:
        """Numbers learnt, both towers."""
        return sum(parameter.numel() for parameter in self._network.parameters())

    def __call__(self, audio_BAS: Audio) -> Embeddings:
        """Unit vectors `(B, width)` of audio; see `Embedder`."""
        with torch.inference_mode(), torch_threads(self._threads):
            return self.embed_mels(self._log_mel(torch.from_numpy(checked(audio_BAS))))

    def embed_mels(self, mels_BMT: Tensor) -> Embeddings:
        """Unit vectors `(B, width)` of `LogMel` frames."""
        with torch.inference_mode(), torch_threads(self._threads):
            parts = [self._network.audio(part.float()) for part in torch.split(mels_BMT, 64)]
        return np.asarray(torch.cat(parts).numpy(), dtype=np.float32)

    def text(self, prompts: Sequence[str]) -> Embeddings:
        """Unit vectors `(B, width)` of prompts."""
        with torch.inference_mode():
            return np.asarray(self.text_vectors(self._encoder(prompts)).numpy(), dtype=np.float32)

    def audio_vectors(self, audio_BAS: Tensor) -> Tensor:
        """Unit vectors `(B, width)` of audio, differentiable in it."""
        vectors: Tensor = self._network.audio(self._log_mel(audio_BAS.float()))
        return vectors

    def text_vectors(self, states: TextStates) -> Tensor:
        """Unit vectors `(B, width)` of prompts that the CLAP's own text encoder has read."""
        vectors: Tensor = self._network.text(states)
        return vectors


def load_clap(location: str = "clap-v1", *, threads: int = 1) -> Clap:
    """A CLAP shipped with Sonarc by name, or from the folder at a location.

    Raises:
        ConfigError: there is none, or its text encoder is not the installed one.
        CheckpointError: its files are damaged.
    """
    shipped = ASSETS / location
    folder = shipped.as_uri() if shipped.is_dir() else store.as_uri(location)
    weights_uri, config_uri = store.join(folder, "model.safetensors"), store.join(folder, "config.json")
    if not store.exists(weights_uri):
        raise ConfigError(f"There is no CLAP {location!r}.", "Set evaluate.clap to clap-v1 or to a CLAP's folder.")
    data, document = store.read_bytes(weights_uri), store.read_json(config_uri)
    try:
        config = ClapConfig.model_validate(document)
        weights = safetensors.torch.load(data)
    except (ValidationError, SafetensorError) as error:
        raise CheckpointError(f"The CLAP at {folder} is damaged: {error}.", "Use the shipped CLAP.") from error
    encoder = load_text_encoder(TextConfig())
    if (encoder.name, encoder.sha256) != (config.text_encoder, config.text_encoder_sha256):
        raise ConfigError(
            f"The CLAP {location!r} was trained on the text encoder {config.text_encoder}:"
            f"{config.text_encoder_sha256[:12]}, installed is {encoder.name}:{encoder.sha256[:12]}.",
            "Install the pinned text encoder with `make install`, or train a CLAP with `sonarc train clap`.",
        )
    return Clap(config, weights, clap_sha256(config, data), encoder, threads=threads)


def _load(network: ClapNetwork, weights: dict[str, Tensor]) -> None:
    """Load float32 copies; BatchNorm's counters of batches, which inference never reads, are not stored."""
    counters = {name: value for name, value in network.state_dict().items() if not value.is_floating_point()}
    network.load_state_dict({name: tensor.float() for name, tensor in weights.items()} | counters)


def clap_sha256(config: ClapConfig, weights: bytes) -> str:
    """Hash of a CLAP: its config, which names the text encoder, and the bytes of its weights."""
    return sha256_json({"config": config.model_dump(mode="json"), "weights": sha256_bytes(weights)})


def _mel_matrix(config: ClapConfig) -> NDArray[np.float32]:
    """HTK-spaced triangles `(fft / 2 + 1, mels)`; a band narrower than a bin takes its nearest one."""
    nyquist = config.sample_rate / 2
    hertz = np.linspace(0, nyquist, config.fft // 2 + 1)[:, None]
    low, high = (2_595 * np.log10(1 + f / 700) for f in (40.0, nyquist))
    edges = 700 * (10 ** (np.linspace(low, high, config.mels + 2) / 2_595) - 1)
    bin_width = hertz[1, 0]
    rising = (hertz - edges[:-2]) / np.maximum(edges[1:-1] - edges[:-2], bin_width)
    falling = (edges[2:] - hertz) / np.maximum(edges[2:] - edges[1:-1], bin_width)
    weights = np.maximum(0, np.minimum(rising, falling))
    return np.asarray(weights / np.maximum(weights.sum(axis=0), 1e-9), dtype=np.float32)
