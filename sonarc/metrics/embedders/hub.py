"""Models of transformers as embedders, by local folder or hub id: a CLAP (LAION's), or any audio classifier.

Weights are read from safetensors only. A clip longer than the model's window is heard in windows, and their vectors
are averaged: the feature extractors of transformers would cut it at random.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import soxr
import torch
from numpy.typing import NDArray

from sonarc.contracts.config import space_of
from sonarc.contracts.errors import ConfigError
from sonarc.contracts.hashing import sha256_json
from sonarc.metrics.embedders.interface import Audio, Embeddings, Tags, checked, torch_threads
from sonarc.text.t5 import weights_sha256

RECIPE = "hub/1: mono mean, soxr HQ, windows averaged"
WINDOWS_AT_ONCE = 16
LONGEST_SECONDS = 10.0
"""Window of models whose feature extractor names none."""


class _Windows:
    """Clips at any rate → features of windows at the model's rate, and back to a vector a clip."""

    def __init__(self, extractor: Any, sample_rate: int) -> None:
        self.extractor, self.sample_rate = extractor, sample_rate
        self.rate = int(extractor.sampling_rate)
        self.length = int(getattr(extractor, "nb_max_samples", 0) or LONGEST_SECONDS * self.rate)

    def average(self, audio_BAS: Audio, run: Callable[[dict[str, torch.Tensor]], torch.Tensor]) -> Embeddings:
        """`run` on the features of every window; the mean over each clip's windows `(B, E)`."""
        windows, owners = list[NDArray[np.float32]](), list[int]()
        for n, clip_AS in enumerate(checked(audio_BAS)):
            mono = soxr.resample(clip_AS.mean(axis=0), self.sample_rate, self.rate, quality="HQ").astype(np.float32)
            parts = [mono[start : start + self.length] for start in range(0, len(mono), self.length)]
            # A short rest would be heard as a clip of its own.
            parts = parts[:-1] if len(parts) > 1 and len(parts[-1]) < self.length // 2 else parts
            windows += parts
            owners += [n] * len(parts)
        vectors = []
        for start in range(0, len(windows), WINDOWS_AT_ONCE):
            batch = windows[start : start + WINDOWS_AT_ONCE]
            vectors.append(run(dict(self.extractor(batch, sampling_rate=self.rate, return_tensors="pt"))))
        found = torch.cat(vectors).float().numpy()
        counts = np.bincount(owners, minlength=len(audio_BAS))[:, None]
        sums = np.zeros((len(audio_BAS), found.shape[1]), np.float32)
        np.add.at(sums, owners, found)
        return np.asarray(sums / counts, dtype=np.float32)


class HubClap:
    """A CLAP of transformers: as an embedder its audio tower, and with `text` an audio-text model."""

    def __init__(self, path: str, *, sample_rate: int = 44_100, threads: int = 1) -> None:
        """
        Args:
            path: local folder or hub id.
            sample_rate: of the audio it will be given, Hz.

        Raises:
            ConfigError: nothing loadable there.
        """
        from transformers import AutoProcessor, ClapModel

        self._model, processor = _loaded(path, ClapModel, AutoProcessor)
        self._tokenizer = processor.tokenizer
        self._windows = _Windows(processor.feature_extractor, sample_rate)
        self.name, self.sample_rate = space_of(f"hub:{path}"), sample_rate
        self.width = int(self._model.config.projection_dim)
        self.sha256 = sha256_json({"weights": weights_sha256(self._model), "recipe": RECIPE})
        self._threads = threads

    def __call__(self, audio_BAS: Audio) -> Embeddings:
        """Unit vectors `(B, width)` of audio; see `Embedder`."""
        with torch.inference_mode(), torch_threads(self._threads):
            return _unit(self._windows.average(audio_BAS, lambda x: _pooled(self._model.get_audio_features(**x))))

    def text(self, prompts: Sequence[str]) -> Embeddings:
        """Unit vectors `(B, width)` of prompts."""
        with torch.inference_mode(), torch_threads(self._threads):
            tokens = self._tokenizer(list(prompts), padding=True, truncation=True, return_tensors="pt")
            kept = {name: tokens[name] for name in ("input_ids", "attention_mask")}
            return _unit(_pooled(self._model.get_text_features(**kept)).float().numpy())


class HubTagger:
    """An audio classifier of transformers: the mean of its last states, and its classes' posteriors."""

    def __init__(self, path: str, *, sample_rate: int = 44_100, threads: int = 1) -> None:
        """See `HubClap`."""
        from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

        self._model, extractor = _loaded(path, AutoModelForAudioClassification, AutoFeatureExtractor)
        self._windows = _Windows(extractor, sample_rate)
        self.name, self.sample_rate = space_of(f"hub:{path}"), sample_rate
        self.width = int(self._model.config.hidden_size)
        self.sha256 = sha256_json({"weights": weights_sha256(self._model), "recipe": RECIPE})
        self._threads = threads

    def __call__(self, audio_BAS: Audio) -> Embeddings:
        """Vectors `(B, width)`; see `Embedder`."""
        return self.tag(audio_BAS).embeddings_BE

    def tag(self, audio_BAS: Audio) -> Tags:
        """Vectors and posteriors of the classifier's classes, each on its own, means over a clip's windows."""

        def run(features: dict[str, torch.Tensor]) -> torch.Tensor:
            out = self._model(**features, output_hidden_states=True)
            return torch.cat([out.hidden_states[-1].mean(dim=1), out.logits.sigmoid()], dim=1)

        with torch.inference_mode(), torch_threads(self._threads):
            both = self._windows.average(audio_BAS, run)
        return Tags(np.ascontiguousarray(both[:, : self.width]), np.ascontiguousarray(both[:, self.width :]))


def load_hub(path: str, *, threads: int = 1) -> HubClap | HubTagger:
    """The model at a local folder or hub id: a CLAP, or else an audio classifier.

    Raises:
        ConfigError: nothing loadable there.
    """
    from transformers import AutoConfig

    try:
        kind = AutoConfig.from_pretrained(path).model_type
    except (OSError, ValueError) as error:
        raise _missing(path, error) from error
    return HubClap(path, threads=threads) if kind == "clap" else HubTagger(path, threads=threads)


def _loaded(path: str, model_class: Any, processor_class: Any) -> tuple[Any, Any]:
    try:
        model = model_class.from_pretrained(path, use_safetensors=True, dtype=torch.float32)
        processor = processor_class.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise _missing(path, error) from error
    return model.eval().requires_grad_(False), processor


def _missing(path: str, error: Exception) -> ConfigError:
    return ConfigError(
        f"No audio model of transformers could be loaded from {path!r}: {error}",
        "Give a folder or hub id with config.json, model.safetensors and preprocessor_config.json.",
    )


def _pooled(found: Any) -> torch.Tensor:
    pooled = found if isinstance(found, torch.Tensor) else found.pooler_output
    assert isinstance(pooled, torch.Tensor)
    return pooled


def _unit(x_BE: Embeddings) -> Embeddings:
    return np.asarray(x_BE / np.maximum(np.linalg.norm(x_BE, axis=1, keepdims=True), 1e-12), dtype=np.float32)
