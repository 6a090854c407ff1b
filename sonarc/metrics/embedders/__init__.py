"""Embedding spaces of the Fréchet distance: two that packages ship, and any by local path or hub id.

embedder = load_embedder("yamnet", threads=2)
x_NE = embed(embedder, audio_NAS)
"""

from __future__ import annotations

from sonarc.contracts.errors import ConfigError
from sonarc.metrics.embedders.interface import AudioText, Embedder, embed

__all__ = ["AudioText", "Embedder", "embed", "load_audio_text", "load_embedder"]


def load_embedder(name: str, *, threads: int = 1) -> Embedder:
    """The embedder called `name`: `yamnet`, `aisfx`, `hub:<folder or id>` or `onnx:<file>`.

    Args:
        threads: CPU threads of its network.

    Raises:
        ConfigError: an unknown name, or the package that ships its weights is not installed.
    """
    if name == "yamnet":
        from sonarc.metrics.embedders.yamnet import YamNet

        return YamNet(threads=threads)
    if name == "aisfx":
        from sonarc.metrics.embedders.aisfx import AiSfx

        return AiSfx(threads=threads)
    kind, _, place = name.partition(":")
    if kind == "hub" and place:
        from sonarc.metrics.embedders.hub import load_hub

        return load_hub(place, threads=threads)
    if kind == "onnx" and place:
        from sonarc.metrics.embedders.onnx_file import OnnxEmbedder

        return OnnxEmbedder(place, threads=threads)
    raise ConfigError(f"There is no embedder {name!r}.", "Use yamnet, aisfx, hub:<folder or id> or onnx:<file>.")


def load_audio_text(location: str, *, threads: int = 1) -> AudioText:
    """The audio-text model at `location`: an in-domain CLAP, or with `hub:<folder or id>` a CLAP of transformers.

    Raises:
        ConfigError: there is none.
    """
    kind, _, place = location.partition(":")
    if kind == "hub":
        from sonarc.metrics.embedders.hub import HubClap, load_hub

        found = load_hub(place, threads=threads)
        if not isinstance(found, HubClap):
            raise ConfigError(f"The model {place!r} reads no text.", "Set evaluate.clap to a CLAP.")
        return found
    from sonarc.metrics.embedders.clap import load_clap

    return load_clap(location, threads=threads)
