"""`manifest.json` of an exported folder: what a player needs to know, and the hash of every file.

manifest.json                 written last
float32/…, int8/…             text_encoder.onnx, dit.onnx, decoder.onnx
tokenizer.json                of the text encoder
player.py, README.md          a player that needs this folder alone, and the card
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Precision = Literal["float32", "int8"]
Network = Literal["text_encoder", "dit", "decoder"]
PRECISIONS: tuple[Precision, ...] = ("float32", "int8")
NETWORKS: tuple[Network, ...] = ("text_encoder", "dit", "decoder")
MANIFEST = "manifest.json"


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class EdgeFile(_Document):
    """One file of the folder."""

    sha256: str
    bytes: int


class EdgeManifest(_Document):
    """`manifest.json`."""

    schema_: Literal["sonarc.edge/1"] = Field(default="sonarc.edge/1", alias="schema")
    package_sha256: str
    """Hash of the package that was exported."""
    sample_rate: int
    """Hz."""
    clip_samples: int
    """Samples of a whole clip, which is what the decoder makes."""
    frames: int
    """Latent frames of a whole clip."""
    hop: int
    """Audio samples a latent frame."""
    patch: int
    """Latent frames a token of the DiT: the frames of a clip are a multiple of it."""
    latent_channels: int
    text_width: int
    max_tokens: int
    """Length that the DiT's text is padded to with zeros; longer prompts are cut."""
    steps: int
    """Network evaluations where nobody asks for another number."""
    silence: tuple[float, ...]
    """Latent of digital silence, which stands beyond a short clip's end."""
    tokenizer: str
    graphs: dict[Precision, dict[Network, str]]
    """Precision → network → file."""
    errors: dict[Precision, dict[Network, float]]
    """Largest deviation from PyTorch in float32, over the output's peak."""
    versions: dict[str, str]
    files: dict[str, EdgeFile]
    """Every other file by its path."""
