"""A model package to a folder of ONNX graphs that `sonarc.edge.player` plays.

Int8 is onnxruntime's dynamic quantisation: weights of matrix products in int8, a scale a column, activations
quantised as they come; convolutions, norms and the inverse transform stay in float32.
"""

from __future__ import annotations

import copy
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import onnx
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import nn

from sonarc.codec.spectral import SpectralCodec
from sonarc.contracts import store
from sonarc.contracts.errors import ConfigError, StoreError
from sonarc.contracts.hashing import sha256_path
from sonarc.contracts.result import recorded_versions
from sonarc.edge import card
from sonarc.edge.graphs import DecoderGraph, RowwiseEmbedding, StepGraph, TextGraph
from sonarc.edge.manifest import MANIFEST, NETWORKS, PRECISIONS, EdgeFile, EdgeManifest, Network, Precision
from sonarc.edge.tracing import Traced, check
from sonarc.runtime.generate import silence_latent, true_frames
from sonarc.runtime.package import LoadedModel, load_model
from sonarc.text.minilm import VOCABULARY, MiniLM

TOKENIZER = "tokenizer.json"
DEFAULT_STEPS = 4
EXAMPLE_TOKENS = 9

Beside = Callable[[Path], None]
"""Puts further files into the folder before it is sealed."""


def export_onnx(
    package_uri: str, out: Path, precisions: Sequence[Precision] = PRECISIONS, *, beside: Beside | None = None
) -> EdgeManifest:
    """Write a package as ONNX graphs, each held against PyTorch; the folder appears whole or not at all.

    Args:
        package_uri: the package's folder.
        out: new folder, or an earlier export, which is replaced.
        precisions: which graphs to write.
        beside: puts further files into the folder.

    Raises:
        StoreError: there is no package, or `out` holds something else. CheckpointError: the package is damaged, or a
        float32 graph deviates from PyTorch. ConfigError: its networks are of a kind that is not exported.
    """
    if out.exists() and not (out / MANIFEST).is_file():
        raise StoreError(f"{out} is there and is no exported model.", "Name a new folder.")
    package = load_model(package_uri)
    networks = _networks(package)
    with _sealed(out) as folder:
        errors: dict[Precision, dict[Network, float]] = {
            precision: {name: _write(folder, precision, name, networks[name]) for name in NETWORKS}
            for precision in precisions
        }
        _put_beside(folder, package)
        if beside is not None:
            beside(folder)
        manifest = _manifest(folder, package, errors)
        store.write_bytes(str(folder / card.CARD), card.text(manifest).encode())
        manifest = manifest.model_copy(update={"files": _files(folder)})
        store.write_json(str(folder / MANIFEST), manifest.model_dump(mode="json", by_alias=True))
    return manifest


def _networks(package: LoadedModel) -> dict[Network, Traced]:
    codec, encoder, settings = package.codec, package.encoder, package.settings
    if not isinstance(codec, SpectralCodec) or not isinstance(encoder, MiniLM) or package.kind != "generator":
        raise ConfigError(
            f"A {package.kind} with the text encoder {encoder.name} and a {type(codec).__name__} is not exported.",
            "Export a generator of the default codec and text encoder: the presets laptop and ci.",
        )
    draw = torch.Generator().manual_seed(0)
    channels, frames = codec.latent_channels, _frames(package)
    mask_1L = torch.arange(encoder.max_tokens)[None] < EXAMPLE_TOKENS
    latents_1CT = torch.randn(1, channels, frames, generator=draw)
    return {
        "text_encoder": Traced(
            TextGraph(encoder.model),
            {"ids": torch.randint(VOCABULARY, (1, EXAMPLE_TOKENS), generator=draw)},
            "states",
            {"ids": {1: "tokens"}, "states": {1: "tokens"}},
        ),
        "dit": Traced(
            StepGraph(package.model),
            {
                "latents": latents_1CT,
                "level": torch.tensor([0.7]),
                "text": torch.randn(1, encoder.max_tokens, encoder.width, generator=draw) * mask_1L[..., None],
                "mask": mask_1L,
                "seconds": torch.tensor([settings.audio.seconds]),
            },
            "velocity",
            {"latents": {2: "frames"}, "velocity": {2: "frames"}},
        ),
        "decoder": Traced(DecoderGraph(codec, frames), {"latents": latents_1CT}, "audio", {}),
    }


def _write(folder: Path, precision: Precision, name: Network, network: Traced) -> float:
    """Write one graph; returns how far it is from PyTorch."""
    path = folder / precision / f"{name}.onnx"
    path.parent.mkdir(exist_ok=True)
    if precision == "float32":
        network.write(path)
        error = network.error(path)
        check(name, error)
        return error
    with TemporaryDirectory(dir=folder.parent) as scratch:
        whole = Path(scratch) / path.name
        _light(network).write(whole)
        _quantise(whole, path)
    return network.error(path)


def _light(network: Traced) -> Traced:
    """The same network with its embedding, if it has one, in int8: the quantiser would give it a single scale."""
    if not isinstance(network.graph, TextGraph):
        return network
    model = copy.deepcopy(network.graph.model)
    model.embeddings.word_embeddings = cast(nn.Embedding, RowwiseEmbedding(model.embeddings.word_embeddings))
    return replace(network, graph=TextGraph(model))


def _quantise(source: Path, target: Path) -> None:
    graph = onnx.load(source, load_external_data=False).graph
    exact = [node.name for node in graph.node if "/inverse/" in node.name]
    logging.disable(logging.WARNING)  # it recommends symbolic shapes, which these graphs do without
    try:
        quantize_dynamic(
            source,
            target,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=exact,
        )
    finally:
        logging.disable(logging.NOTSET)


def _put_beside(folder: Path, package: LoadedModel) -> None:
    assert isinstance(package.encoder, MiniLM)
    shutil.copyfile(package.encoder.tokenizer_file, folder / TOKENIZER)
    (folder / "player.py").write_bytes((resources.files("sonarc.edge") / "player.py").read_bytes())


def _frames(package: LoadedModel) -> int:
    return true_frames(package.settings.audio.samples, package.codec, package.settings.dit.patch)


def _manifest(folder: Path, package: LoadedModel, errors: dict[Precision, dict[Network, float]]) -> EdgeManifest:
    codec, settings = package.codec, package.settings
    return EdgeManifest(
        package_sha256=package.sha256,
        sample_rate=codec.sample_rate,
        clip_samples=settings.audio.samples,
        frames=_frames(package),
        hop=codec.hop,
        patch=settings.dit.patch,
        latent_channels=codec.latent_channels,
        text_width=package.encoder.width,
        max_tokens=package.encoder.max_tokens,
        steps=DEFAULT_STEPS,
        silence=tuple(silence_latent(codec).tolist()),
        tokenizer=TOKENIZER,
        graphs={precision: {name: f"{precision}/{name}.onnx" for name in NETWORKS} for precision in errors},
        errors=errors,
        versions=recorded_versions(("torch", "onnx", "onnxruntime")),
        files=_files(folder),
    )


def _files(folder: Path) -> dict[str, EdgeFile]:
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): EdgeFile(sha256=sha256_path(path), bytes=path.stat().st_size)
        for path in found
    }


@contextmanager
def _sealed(out: Path) -> Iterator[Path]:
    """A folder beside `out` that takes its place when all is well."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
        folder = Path(scratch) / "whole"
        folder.mkdir()
        yield folder
        if out.exists():
            out.rename(Path(scratch) / "before")
        folder.rename(out)
