"""aiSFX: 512-d embedding of sound effects at 44.1 kHz (Ma and Lerch, ISMIR 2022, CC-BY-4.0).

A nine-layer CNN trained to name sounds across effect libraries. The weights come from the `aisfx`
package; its network and front end are restated here, since the package reads audio through librosa.
Front end: peak-normalised mono, 2,048-sample Hann frames every 1,024, |rfft|², 96 HTK mel bands of
unit sum, log10(10,000·mel + 1) over the training maximum. The network is convolutional and takes the
maximum over time, so a clip is read in one piece, not in blocks.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from sonarc.contracts.hashing import sha256_json, sha256_path
from sonarc.metrics.embedders.interface import Audio, Embeddings, checked, package_file, torch_threads

FFT, HOP, MELS = 2_048, 1_024, 96
MIN_FRAMES = 100
TRAINING_MAXIMUM = 9.457798957824707
RECIPE = "aisfx/1: one piece, mono mean, peak normalised, bfloat16 convolutions with folded norms"


_NUMPY_NAMES = ("numpy.core.multiarray.scalar", "numpy.dtype")


class _Ignored:
    """Stands for a pickled object that is not a tensor: takes anything, does nothing."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


class AiSfx:
    """The embedder `aisfx`."""

    name = "aisfx"
    sample_rate = 44_100
    width = 512

    def __init__(self, *, threads: int = 1) -> None:
        checkpoint = package_file("aisfx", "models", "checkpoint.pth")
        self.sha256 = sha256_json({"weights": sha256_path(checkpoint), "recipe": RECIPE})
        # Beside the weights the file counts its training classes in numpy scalars: read as nothing.
        with torch.serialization.safe_globals([(_Ignored, name) for name in _NUMPY_NAMES]):
            weights, _ = torch.load(checkpoint, map_location="cpu", weights_only=True)
        self._blocks = [
            [_folded(weights, f"embedding_net.conv_block{block}", layer) for layer in (1, 2)] for block in (1, 2, 3, 4)
        ]
        self._mel_FM = torch.from_numpy(_mel_matrix())
        self._window = torch.hann_window(FFT)
        self._threads = threads

    def __call__(self, audio_BAS: Audio) -> Embeddings:
        """Vectors `(B, 512)`; see `Embedder`."""
        audio = torch.from_numpy(checked(audio_BAS))
        with torch.inference_mode(), torch_threads(self._threads):
            vectors_BE = self._network(self._spectrogram(audio.mean(dim=1)))
        return np.asarray(vectors_BE.numpy(), dtype=np.float32)

    def _spectrogram(self, mono_BS: Tensor) -> Tensor:
        """Normalised log-mel frames `(B, T, 96)`, at least 100 of them."""
        peak_B1 = mono_BS.abs().amax(dim=1, keepdim=True)
        mono_BS = mono_BS / torch.where(peak_B1 > 0, peak_B1, 1.0)
        short = MIN_FRAMES * HOP - mono_BS.shape[1]
        padded = F.pad(mono_BS, (FFT // 2, FFT // 2 + max(0, short)))
        frames = padded.unfold(1, FFT, HOP) * self._window
        power = torch.fft.rfft(frames).abs().square()
        return torch.log10(power @ self._mel_FM * 10_000 + 1) / TRAINING_MAXIMUM

    def _network(self, mel_BTM: Tensor) -> Tensor:
        """Four blocks of two convolutions, halved three times; band mean, then maximum over time."""
        x_BCTM = mel_BTM[:, None].bfloat16().contiguous(memory_format=torch.channels_last)
        for number, block in enumerate(self._blocks):
            for weight, bias in block:
                x_BCTM = F.conv2d(x_BCTM, weight, bias, padding=1).relu_()
            if number < 3:
                x_BCTM = F.max_pool2d(x_BCTM, 2)
        return x_BCTM.float().mean(dim=3).amax(dim=2)


def _folded(weights: dict[str, Tensor], block: str, layer: int) -> tuple[Tensor, Tensor]:
    """Weight and bias, bfloat16, of a convolution that holds the batch normalisation after it."""
    norm = f"{block}.bn{layer}"
    scale_C = weights[f"{norm}.weight"] * (weights[f"{norm}.running_var"] + 1e-5).rsqrt()
    weight = weights[f"{block}.conv{layer}.weight"] * scale_C[:, None, None, None]
    bias = weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * scale_C
    return weight.bfloat16().contiguous(memory_format=torch.channels_last), bias.bfloat16()


def _mel_matrix() -> NDArray[np.float32]:
    """HTK-spaced triangles `(1025, 96)`, straight in hertz, each of unit sum."""
    hertz = np.linspace(0, 22_050, FFT // 2 + 1)[:, None]
    edges = 700 * (10 ** (np.linspace(0, 2_595 * np.log10(1 + 22_050 / 700), MELS + 2) / 2_595) - 1)
    rising = (hertz - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - hertz) / (edges[2:] - edges[1:-1])
    weights = np.maximum(0, np.minimum(rising, falling))
    sums = weights.sum(axis=0)
    # The lowest bands are narrower than a bin; one that holds none stays empty.
    return np.asarray(weights / np.where(sums > 0, sums, 1), dtype=np.float32)
