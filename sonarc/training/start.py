"""The weights of an earlier base, for a pre-training to begin with."""

from __future__ import annotations

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from sonarc.contracts import store
from sonarc.contracts.errors import CheckpointError
from sonarc.contracts.hashing import sha256_bytes
from sonarc.contracts.package import read_package

WEIGHTS = "generator.safetensors"


def base_weights(package_uri: str, text_encoder: str) -> dict[str, Tensor]:
    """The averaged weights in a base's package.

    Args:
        text_encoder: kind and hash of the encoder whose states the network is to read.

    Raises:
        StoreError: there is no such package. CheckpointError: it holds no base, its weights are not the ones that its
            manifest names, or it reads another text encoder.
    """
    package = read_package(package_uri)
    if package.kind != "base":
        raise CheckpointError(f"The package {package_uri} holds a {package.kind}, not a base.", "Start from scratch.")
    if package.lineage.text_encoder != text_encoder:
        raise CheckpointError(
            f"The base {package_uri} reads the text encoder {package.lineage.text_encoder}, not {text_encoder}.",
            "Start from scratch: --set retrain.warm_start=off",
        )
    data = store.read_bytes(store.join(package_uri, WEIGHTS))
    if sha256_bytes(data) != package.files.get(WEIGHTS):
        raise CheckpointError(
            f"{WEIGHTS} of the package {package_uri} is not the one its manifest names.", "Start from scratch."
        )
    try:
        return safetensors.torch.load(data)
    except SafetensorError as error:
        raise CheckpointError(
            f"The weights of {package_uri} are no safetensors file: {error}.", "Start from scratch."
        ) from error
