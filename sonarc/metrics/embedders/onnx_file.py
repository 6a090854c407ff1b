"""Any network of waveforms in an ONNX file as an embedder: OpenL3, PaSST and their like, once exported.

The file takes mono `(B, S)` or, with three axes, `(B, A, S)`, and gives vectors `(B, E)`, or `(B, T, E)` that are
averaged over time. Its metadata says at what rate: `sample_rate`, Hz.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import soxr

from sonarc.contracts.config import space_of
from sonarc.contracts.errors import ConfigError
from sonarc.contracts.hashing import sha256_json, sha256_path
from sonarc.metrics.embedders.interface import Audio, Embeddings, checked

RECIPE = "onnx/1: soxr HQ"


class OnnxEmbedder:
    """The embedder `onnx:<file>`."""

    def __init__(self, path: str, *, sample_rate: int = 44_100, threads: int = 1) -> None:
        """
        Args:
            path: the file.
            sample_rate: of the audio it will be given, Hz.

        Raises:
            ConfigError: no such file, no network, or one that is no embedder of waveforms.
        """
        file = Path(path)
        if not file.is_file():
            raise ConfigError(f"There is no file {path!r}.", "Give the path of an ONNX file: onnx:<file>.")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        try:
            self._session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own exceptions have no common base
            raise ConfigError(f"{path!r} is no network: {error}", "Export the model to ONNX again.") from error
        rate = self._session.get_modelmeta().custom_metadata_map.get("sample_rate", "")
        self._input, output = self._session.get_inputs()[0], self._session.get_outputs()[0]
        if not rate.isdigit() or len(self._input.shape) not in (2, 3) or not isinstance(output.shape[-1], int):
            raise ConfigError(
                f"{path!r} has input {self._input.shape}, output {output.shape} and sample_rate {rate!r}.",
                "It takes waveforms (B, S) or (B, A, S), gives vectors of known width, and names its sample_rate.",
            )
        self._rate, self.width = int(rate), output.shape[-1]
        self.name, self.sample_rate = space_of(f"onnx:{path}"), sample_rate
        self.sha256 = sha256_json({"weights": sha256_path(file), "recipe": RECIPE})

    def __call__(self, audio_BAS: Audio) -> Embeddings:
        """Vectors `(B, width)`; see `Embedder`."""
        clips = checked(audio_BAS)
        if len(self._input.shape) == 2:
            clips = clips.mean(axis=1, keepdims=True)
        at_rate = np.stack([soxr.resample(clip.T, self.sample_rate, self._rate, quality="HQ").T for clip in clips])
        fed = at_rate[:, 0] if len(self._input.shape) == 2 else at_rate
        (found,) = self._session.run(None, {self._input.name: np.ascontiguousarray(fed, dtype=np.float32)})[:1]
        vectors = found.mean(axis=1) if found.ndim == 3 else found
        return np.asarray(vectors, dtype=np.float32)
