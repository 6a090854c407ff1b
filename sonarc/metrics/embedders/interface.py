"""What the metrics know of an embedder, and how the weights inside an installed package are found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from sonarc.contracts.errors import ConfigError, DataError

Audio = NDArray[np.float32]
Embeddings = NDArray[np.float32]


class Embedder(Protocol):
    """Audio to vectors. Deterministic; a clip's vector does not depend on what else is in the batch."""

    @property
    def name(self) -> str:
        """Short name; the distance in this space is `fd_<name>`."""

    @property
    def sha256(self) -> str:
        """Hash of the weights and of everything else that shapes the vectors."""

    @property
    def sample_rate(self) -> int:
        """Samples a second of the audio it takes; what its network needs is made inside."""

    @property
    def width(self) -> int:
        """Dimensions E of a vector."""

    def __call__(self, audio_BAS: Audio) -> Embeddings:
        """Vectors `(B, E)` float32 of audio `(B, A, S)` in [-1, 1].

        Raises:
            DataError: another shape, or a sample that is not finite.
        """


class Tags(NamedTuple):
    """What a tagger says of a batch of clips."""

    embeddings_BE: Embeddings
    posteriors_BK: Embeddings
    """Posteriors of K classes, in [0, 1], not exclusive."""


@runtime_checkable
class Tagger(Protocol):
    """An embedder that names classes, too."""

    def tag(self, audio_BAS: Audio) -> Tags:
        """Vectors, as by calling it, and class posteriors of a batch of clips."""


class AudioText(Embedder, Protocol):
    """An embedder whose space holds prompts, too: vectors have length 1, their product is the agreement."""

    def text(self, prompts: Sequence[str]) -> Embeddings:
        """Unit vectors `(B, E)` of prompts."""


def embed(embedder: Embedder, audio_NAS: Audio, batch: int = 32) -> Embeddings:
    """Vectors `(N, E)` of many clips, `batch` at a time."""
    parts = [embedder(audio_NAS[start : start + batch]) for start in range(0, len(audio_NAS), batch)]
    return np.concatenate(parts) if parts else np.zeros((0, embedder.width), np.float32)


def checked(audio_BAS: Audio) -> Audio:
    """The audio as float32, refused if it is no batch of clips or holds NaN.

    Raises:
        DataError: another shape, no samples, or a sample that is not finite.
    """
    audio = np.asarray(audio_BAS, dtype=np.float32)
    if audio.ndim != 3 or 0 in audio.shape[1:]:
        raise DataError(f"Audio of shape {audio.shape} is not (clips, channels, samples).", "Stack equally long clips.")
    if not np.isfinite(audio).all():
        raise DataError("The audio holds NaN or infinite samples.", "Drop such clips before embedding.")
    return audio


def sounding_samples(mono_S: Audio) -> int:
    """Samples up to the last one that is not digital silence."""
    sounding = np.flatnonzero(mono_S)
    return int(sounding[-1]) + 1 if len(sounding) else 0


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Torch with this many CPU threads, and afterwards as before."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def package_file(package: str, *parts: str) -> Path:
    """A data file of an installed package, without importing it.

    Raises:
        ConfigError: the package or the file is not there.
    """
    spec = find_spec(package)
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    for place in places:
        path = Path(place).joinpath(*parts)
        if path.is_file():
            return path
    raise ConfigError(f"The package {package!r}, which ships {parts[-1]}, is not installed.", "Run `make install`.")
