"""Embedding spaces of the Fréchet distance, each read from the package that ships its weights.

embedder = load_embedder("yamnet", threads=2)
x_NE = embed(embedder, audio_NAS)
"""

from __future__ import annotations

from sonarc.contracts.errors import ConfigError
from sonarc.metrics.embedders.interface import Embedder, embed

__all__ = ["Embedder", "embed", "load_embedder"]


def load_embedder(name: str, *, threads: int = 1) -> Embedder:
    """The embedder called `name`, `yamnet` or `aisfx`.

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
    raise ConfigError(f"There is no embedder {name!r}.", "Use yamnet or aisfx.")
