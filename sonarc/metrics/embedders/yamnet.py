"""YAMNet: AudioSet tagger, 1,024-d embedding and 521 class logits at 16 kHz.

The weights ship inside the `sead` package as a quantised ONNX graph whose initialisers are float32:
without its QuantizeLinear and DequantizeLinear nodes it is the float network. Front end as published
(Plakal and Ellis, 2020): 25 ms Hann frames every 10 ms, |rfft 512|, 64 HTK mel bands of 125 to 7,500 Hz,
log(mel + 0.001), patches of 0.96 s every 0.48 s.
"""

from __future__ import annotations

import os
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import soxr
from numpy.typing import NDArray

from sonarc.contracts.hashing import sha256_json, sha256_path
from sonarc.contracts.store import cache_root
from sonarc.metrics.embedders.interface import Audio, Embeddings, Tags, checked, package_file, sounding_samples

RATE = 16_000
WINDOW, HOP, FFT = 400, 160, 512
MELS, LOW_HZ, HIGH_HZ, OFFSET = 64, 125.0, 7_500.0, 0.001
PATCH, PATCH_HOP = 96, 48
PATCH_SAMPLES = (PATCH - 1) * HOP + WINDOW
CLASSES = 521
RECIPE = "yamnet/1: dequantised, soxr HQ, mono mean, mean of the patches that begin before the clip ends"


class YamNet:
    """The embedder `yamnet`. A clip's vector is the mean of its patches' vectors."""

    name = "yamnet"
    sample_rate = 44_100
    width = 1_024

    def __init__(self, *, threads: int = 1) -> None:
        archive = package_file("sead", "data", "YamNet_w8a8.onnx.zip")
        source_sha256 = sha256_path(archive)
        self.sha256 = sha256_json({"weights": source_sha256, "recipe": RECIPE})
        model = cache_root() / "embedders" / f"yamnet-{self.sha256[:16]}.onnx"
        if not model.exists():
            _convert(archive, model)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self._mel_FM = _mel_matrix()
        self._window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)).astype(np.float32)

    def __call__(self, audio_BAS: Audio) -> Embeddings:
        """Vectors `(B, 1024)`; see `Embedder`."""
        return self.tag(audio_BAS).embeddings_BE

    def tag(self, audio_BAS: Audio) -> Tags:
        """Vectors and posteriors of the 521 AudioSet classes, each a mean over a clip's patches."""
        patches = [self._patches(clip_AS.mean(axis=0)) for clip_AS in checked(audio_BAS)]
        starts = np.cumsum([0, *(len(patch) for patch in patches)])[:-1]
        feed = {"patches": np.concatenate(patches)[:, None]}
        logits, vectors = self._session.run(["logits", "embedding"], feed)
        posteriors = 0.5 + 0.5 * np.tanh(0.5 * logits)  # the sigmoid, without overflow
        return Tags(_means(vectors, starts), _means(posteriors, starts))

    def _patches(self, mono_S: Audio) -> NDArray[np.float32]:
        """Log-mel patches `(patches, 96, 64)` of one clip: those that begin before its end."""
        heard = mono_S[: max(sounding_samples(mono_S), 1)]
        wave = soxr.resample(heard, self.sample_rate, RATE, quality="HQ").astype(np.float32)
        stride = PATCH_HOP * HOP
        whole = max(0, len(mono_S) * RATE // self.sample_rate - PATCH_SAMPLES) // stride + 1
        count = max(1, min(whole, -(-len(wave) // stride)))
        wave = np.pad(wave, (0, max(0, PATCH_SAMPLES + (count - 1) * stride - len(wave))))
        frames = np.lib.stride_tricks.sliding_window_view(wave, WINDOW)[::HOP]
        frames = frames[: PATCH + (count - 1) * PATCH_HOP]
        magnitude = np.abs(np.fft.rfft(frames * self._window, FFT)).astype(np.float32)
        mel = np.log(magnitude @ self._mel_FM + OFFSET)
        return np.stack([mel[i * PATCH_HOP : i * PATCH_HOP + PATCH] for i in range(count)])


def _means(rows_PE: Embeddings, starts: NDArray[np.intp]) -> Embeddings:
    """Means of the runs of rows that begin at `starts`."""
    counts = np.diff([*starts, len(rows_PE)])[:, None]
    return np.asarray(np.add.reduceat(rows_PE, starts) / counts, dtype=np.float32)


def _hertz_to_mel(hertz: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1127.0 * np.log1p(hertz / 700.0)


def _mel_matrix() -> NDArray[np.float32]:
    """HTK triangles `(257, 64)`, straight in mel, without area normalisation; the DC bin is left out."""
    bins = _hertz_to_mel(np.linspace(0, RATE / 2, FFT // 2 + 1))[:, None]
    low, high = _hertz_to_mel(np.array([LOW_HZ, HIGH_HZ]))
    edges = np.linspace(low, high, MELS + 2)
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    weights = np.maximum(0, np.minimum(rising, falling))
    weights[0] = 0
    return np.asarray(weights, dtype=np.float32)


def _convert(archive: Path, target: Path) -> None:
    """Write the float network with a free batch axis; it appears whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        with zipfile.ZipFile(archive) as file:
            file.extractall(folder)
        model = onnx.load(next(Path(folder).rglob("*.onnx")))
        onnx.save(_dequantised(model), Path(folder) / "float.onnx")
        os.replace(Path(folder) / "float.onnx", target)


def _dequantised(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph without quantisation nodes: every tensor takes the name of the one it was quantised from."""
    graph = model.graph
    quantised = {"QuantizeLinear", "DequantizeLinear"}
    original = {node.output[0]: node.input[0] for node in graph.node if node.op_type in quantised}

    def source(name: str) -> str:
        while name in original:
            name = original[name]
        return name

    kept = [node for node in graph.node if node.op_type not in quantised]
    names = {graph.input[0].name: "patches"}
    for node in kept:
        inputs = [names.get(source(name), source(name)) for name in node.input]
        del node.input[:]
        node.input.extend(inputs)
    last = kept[-1]
    flatten = next(node for node in kept if node.op_type == "Reshape")
    pooled = flatten.input[0]
    kept[kept.index(flatten)] = onnx.helper.make_node("Flatten", [pooled], ["embedding"], axis=1)
    last.input[0], last.output[0] = "embedding", "logits"
    weights = {tensor.name: tensor for tensor in graph.initializer}
    inputs_used = dict.fromkeys(name for node in kept for name in node.input)
    used = [weights[name] for name in inputs_used if name in weights]
    kind = onnx.TensorProto.FLOAT
    inputs = [onnx.helper.make_tensor_value_info("patches", kind, ["batch", 1, PATCH, MELS])]
    outputs = [
        onnx.helper.make_tensor_value_info("logits", kind, ["batch", CLASSES]),
        onnx.helper.make_tensor_value_info("embedding", kind, ["batch", YamNet.width]),
    ]
    plain = onnx.helper.make_graph(kept, "yamnet", inputs, outputs, initializer=used)
    plain_model = onnx.helper.make_model(plain, opset_imports=model.opset_import, ir_version=model.ir_version)
    onnx.checker.check_model(plain_model)
    return plain_model
