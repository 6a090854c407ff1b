"""A codec on disk: `model.safetensors` and `config.json`, with `card.md` for people.

A spectral codec is stored in float16, an Oobleck as it came.

A codec's hash covers its configuration and its stored weights; it is the same before and after a round trip.
"""

from __future__ import annotations

from importlib import resources

import safetensors
import safetensors.torch
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from sonarc.codec.config import OobleckCodecConfig, SpectralCodecConfig
from sonarc.codec.oobleck import OobleckCodec
from sonarc.codec.spectral import SpectralCodec
from sonarc.contracts import store
from sonarc.contracts.errors import CheckpointError, StoreError
from sonarc.contracts.hashing import canonical_json, sha256_bytes
from sonarc.undrawn import undrawn

_CONFIG: TypeAdapter[SpectralCodecConfig | OobleckCodecConfig] = TypeAdapter(SpectralCodecConfig | OobleckCodecConfig)


def _stored(codec: SpectralCodec | OobleckCodec, without: tuple[str, ...] = ()) -> tuple[bytes, bytes]:
    """The bytes of `config.json` and `model.safetensors`; without the tensors whose names begin so."""
    config = canonical_json(codec.config.model_dump(mode="json")) + "\n"
    dtype = torch.float16 if isinstance(codec, SpectralCodec) else None
    tensors = {
        name: tensor.detach().to(dtype).contiguous()
        for name, tensor in codec.state_dict().items()
        if not name.startswith(without)
    }
    return config.encode(), safetensors.torch.save(tensors)


def codec_sha256(codec: SpectralCodec | OobleckCodec) -> str:
    """Hash of a codec's configuration and of its weights as stored."""
    config, weights = _stored(codec)
    return sha256_bytes(config + weights)


def encoder_sha256(codec: SpectralCodec | OobleckCodec) -> str:
    """Hash of a codec's configuration and of the stored weights that its latents depend on: all but the decoder's."""
    config, weights = _stored(codec, without=(codec.DECODER,))
    return sha256_bytes(config + weights)


def stored_bytes(codec: SpectralCodec | OobleckCodec) -> int:
    """Size of a codec's weights as stored."""
    return len(_stored(codec)[1])


def save_codec(codec: SpectralCodec | OobleckCodec, uri: str, card: str = "") -> str:
    """Write a codec folder, `config.json` last, and return its hash.

    Args:
        codec: what to store; a spectral codec's weights are rounded to float16.
        uri: folder, local or in a bucket.
        card: Markdown for `card.md`; none is written when empty.
    """
    config, weights = _stored(codec)
    store.write_bytes(store.join(uri, "model.safetensors"), weights)
    if card:
        store.write_bytes(store.join(uri, "card.md"), card.encode())
    store.write_bytes(store.join(uri, "config.json"), config)
    return sha256_bytes(config + weights)


def load_codec(name_or_uri: str = "codec-v3") -> SpectralCodec | OobleckCodec:
    """A codec ready for use, in float32 and evaluation mode.

    Args:
        name_or_uri: a codec shipped with Sonarc, such as `codec-v3`, or the location of a codec folder.

    Raises:
        CheckpointError: no such codec, a malformed configuration, or weights that do not fit it: missing,
            unexpected or mis-shaped tensors, or values that are not finite.
    """
    config_bytes, weights = _read(name_or_uri)
    try:
        config = _CONFIG.validate_json(config_bytes)
    except ValidationError as error:
        raise CheckpointError(
            f"The configuration of codec {name_or_uri!r} is not valid: {error}.", "Export the codec again."
        ) from error
    with undrawn():
        codec = SpectralCodec(config) if isinstance(config, SpectralCodecConfig) else OobleckCodec(config)
    try:
        tensors = safetensors.torch.load(weights)
    except safetensors.SafetensorError as error:
        raise CheckpointError(
            f"The weights of codec {name_or_uri!r} are damaged: {error}.", "Get the codec again."
        ) from error
    check_tensors(codec.state_dict(), tensors, f"codec {name_or_uri!r}")
    codec.load_state_dict(tensors)
    return codec.eval().requires_grad_(False)


def _read(name_or_uri: str) -> tuple[bytes, bytes]:
    shipped = resources.files("sonarc") / "assets" / name_or_uri
    if "/" not in name_or_uri and shipped.is_dir():
        return (shipped / "config.json").read_bytes(), (shipped / "model.safetensors").read_bytes()
    try:
        config = store.read_bytes(store.join(name_or_uri, "config.json"))
        return config, store.read_bytes(store.join(name_or_uri, "model.safetensors"))
    except StoreError as error:
        raise CheckpointError(
            f"There is no codec {name_or_uri!r}: {error.message}",
            "Name a shipped codec such as codec-v3, or a folder with config.json and model.safetensors.",
        ) from error


def check_tensors(expected: dict[str, Tensor], found: dict[str, Tensor], what: str) -> None:
    """Refuse weights that do not fit a model exactly.

    Raises:
        CheckpointError: lists missing, unexpected and mis-shaped tensors, and those with values that are not finite.
    """
    problems = {
        "missing": sorted(set(expected) - set(found)),
        "unexpected": sorted(set(found) - set(expected)),
        "mis-shaped": sorted(k for k in set(expected) & set(found) if expected[k].shape != found[k].shape),
        "not finite": sorted(k for k, v in found.items() if v.is_floating_point() and not _is_finite(v)),
    }
    told = "; ".join(f"{kind}: {', '.join(names[:8])}" for kind, names in problems.items() if names)
    if told:
        raise CheckpointError(f"The weights of {what} do not fit its configuration ({told}).", "Get matching files.")


def _is_finite(tensor: Tensor) -> bool:
    # One pass without a copy says so of all but weights whose sum leaves float32.
    return bool(torch.isfinite(tensor.sum(dtype=torch.float32))) or bool(torch.isfinite(tensor).all())
