"""Published weights: which key is whose, read without unpickling, and given back byte for byte.

A file holds three parts: the diffusion transformer (`model.model.`), the conditioners (`conditioner.`), and the
autoencoder (`pretransform.model.`). T5 is not among them. Keys of the first two are ours but for their prefix
(`PUBLISHED_PREFIXES`); the autoencoder's are translated to those of diffusers' `AutoencoderOobleck`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from sonarc.checkpoint import load_tensors
from sonarc.codec.oobleck import OobleckCodec
from sonarc.contracts.errors import CheckpointError
from sonarc.dit import PUBLISHED_PREFIXES, DiT
from sonarc.published.config import PublishedModel

AUTOENCODER = "pretransform.model."
_RESIDUAL = ("snake1", "conv1", "snake2", "conv2")
_BLOCK = {
    "encoder": ("res_unit1", "res_unit2", "res_unit3", "snake1", "conv1"),
    "decoder": ("snake1", "conv_t1", "res_unit1", "res_unit2", "res_unit3"),
}


@dataclass(frozen=True)
class PublishedWeights:
    """A published file by part, each under our own names.

    Attributes:
        dit: the state dict of our `DiT`, conditioners included.
        autoencoder: the state dict of `AutoencoderOobleck`.
    """

    dit: dict[str, Tensor]
    autoencoder: dict[str, Tensor]


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` file, or of a `.ckpt` file, of which nothing but tensors is unpickled.

    Raises:
        CheckpointError: it cannot be read, is damaged, holds code, or has no state dict.
    """
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"Cannot read {path}: {error.strerror or error}.", "Check the path.") from error
    except SafetensorError as error:
        raise CheckpointError(f"{path} is no whole safetensors file: {error}.", "Download it again.") from error
    except Exception as error:  # damaged zip archives and refused pickles come in a dozen kinds
        told = str(error).strip().splitlines()
        raise CheckpointError(
            f"{path} is no checkpoint of plain tensors: {told[0] if told else type(error).__name__}.",
            "Only tensors are read from a .ckpt. Use the .safetensors file.",
        ) from error
    tensors = found.get("state_dict") if isinstance(found, dict) else None
    if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise CheckpointError(f'{path} has no "state_dict" of tensors.', "Use the published model's own file.")
    return tensors


def build_dit(model: PublishedModel) -> DiT:
    """A `DiT` of the published shape, randomly initialised, in evaluation mode."""
    return DiT(model.dit, model.text.width).eval()


def build_autoencoder(model: PublishedModel) -> OobleckCodec:
    """diffusers' `AutoencoderOobleck` of the published shape behind our codec interface, in evaluation mode."""
    return OobleckCodec(model.codec).eval()


def split(tensors: Mapping[str, Tensor], model: PublishedModel) -> PublishedWeights:
    """Part a published file, every key accounted for.

    Raises:
        CheckpointError: lists the missing, unexpected and mis-shaped keys by their published names.
    """
    with torch.device("meta"):
        expected_dit, expected_vae = build_dit(model).state_dict(), build_autoencoder(model).vae.state_dict()
    names = autoencoder_names(expected_vae)
    expected = {published_name(name): tensor.shape for name, tensor in expected_dit.items()}
    expected |= {names[name]: _published_shape(name, tensor) for name, tensor in expected_vae.items()}
    problems = [f"missing {name}" for name in sorted(expected.keys() - tensors.keys())]
    problems += [f"unexpected {name}" for name in sorted(tensors.keys() - expected.keys())]
    problems += [
        f"{name} is {tuple(tensors[name].shape)}, not {tuple(expected[name])}"
        for name in sorted(expected.keys() & tensors.keys())
        if tensors[name].shape != expected[name]
    ]
    if problems:
        raise CheckpointError(
            f"{len(problems)} keys do not fit the model configuration: {'; '.join(problems)}.",
            "Use the model_config.json and the weights of the same release.",
        )
    return PublishedWeights(
        dit={name: tensors[published_name(name)] for name in expected_dit},
        autoencoder={name: tensors[names[name]].reshape(tensor.shape) for name, tensor in expected_vae.items()},
    )


def load_published(dit: DiT, tensors: Mapping[str, Tensor]) -> None:
    """Load a state dict in the published layout; keys of the autoencoder are passed over.

    Raises:
        CheckpointError: missing, unexpected or mis-shaped keys, all listed by our names.
    """
    ours = {_own_name(name): tensor for name, tensor in tensors.items() if not name.startswith(AUTOENCODER)}
    load_tensors(dit, ours)


def published_tensors(weights: PublishedWeights) -> dict[str, Tensor]:
    """The inverse of `split`: a state dict in the published layout, with the very bytes it came with."""
    tensors = {published_name(name): tensor for name, tensor in weights.dit.items()}
    for name, published in autoencoder_names(weights.autoencoder).items():
        tensor = weights.autoencoder[name]
        tensors[published] = tensor.reshape(_published_shape(name, tensor))
    return tensors


def published_name(name: str) -> str:
    """A key of our `DiT` → the published key."""
    for own, published in PUBLISHED_PREFIXES.items():
        if name.startswith(own):
            return published + name.removeprefix(own)
    raise AssertionError("the empty prefix fits every name")


def _own_name(name: str) -> str:
    for own, published in PUBLISHED_PREFIXES.items():
        if name.startswith(published):
            return own + name.removeprefix(published)
    return name  # unknown to us: reported as unexpected


def autoencoder_names(names: Iterable[str]) -> dict[str, str]:
    """Keys of `AutoencoderOobleck` → published keys.

    A published side is a sequence: convolution, blocks, activation, convolution; a block of the encoder ends, and
    one of the decoder begins, with its activation and its resampling convolution.
    """
    listed = list(names)
    blocks = 1 + max(int(found[1]) for name in listed if (found := re.search(r"\.block\.(\d+)\.", name)))
    outer = {"conv1": 0, "snake1": blocks + 1, "conv2": blocks + 2}
    published = {}
    for name in listed:
        side, first, *rest = name.split(".")
        if first == "block":
            number, layer, *inner = rest
            layers = [int(number) + 1, _BLOCK[side].index(layer)]
            if len(inner) == 2:  # inside a residual unit
                layers.append(_RESIDUAL.index(inner[0]))
        else:
            layers = [outer[first]]
        path = "".join(f".layers.{layer}" for layer in layers)
        published[name] = f"{AUTOENCODER}{side}{path}.{name.rsplit('.', 1)[1]}"
    return published


def _published_shape(name: str, tensor: Tensor) -> torch.Size:
    """Published activations have one rate a channel; diffusers' are ready to broadcast, `(1, C, 1)`."""
    return torch.Size([tensor.numel()]) if name.endswith((".alpha", ".beta")) else tensor.shape
