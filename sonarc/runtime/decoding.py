"""A codec whose decoding is done otherwise: the rest of it is another codec's."""

from __future__ import annotations

from sonarc.codec.interface import Codec
from sonarc.runtime.device import device_of


class OtherDecoding:
    """All of a `Codec` but `decode`, which a subclass gives.

    Args:
        codec: what encodes, and whose weights decode; later changes of them are not seen.

    Attributes:
        device: where its weights lie, and its inputs must.
    """

    def __init__(self, codec: Codec) -> None:
        self._codec, self.device = codec, device_of(codec)
        self.sample_rate, self.channels, self.latent_channels = codec.sample_rate, codec.channels, codec.latent_channels
        self.hop, self.frames, self.encode, self.reach = codec.hop, codec.frames, codec.encode, codec.reach

    @property
    def sha256(self) -> str:
        """The codec's own."""
        return self._codec.sha256

    @property
    def encoder_sha256(self) -> str:
        """The codec's own."""
        return self._codec.encoder_sha256
