"""The embedding-alignment (CLAP) loss: what the generator makes should lie near its prompt in an audio-text space.

Source: Stable Audio 3, arXiv 2605.17991, adds such a term to the generator's ARC loss.
Shapes: B clips, C latent channels, T latent frames, A audio channels, S samples, E dimensions of the space.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sonarc.codec.interface import Codec
from sonarc.codec.package import load_codec
from sonarc.contracts.errors import ConfigError
from sonarc.dit import Conditioning
from sonarc.metrics.embedders.clap import Clap, load_clap
from sonarc.runtime.generate import silence_latent
from sonarc.text import TextEncoder


@dataclass(frozen=True)
class ClapAlignment:
    """`1 - cos(audio(decode(x̂0)), text(c))`, differentiable in the latents. Codec and CLAP stay as they are.

    Attributes:
        codec: decodes the generator's estimates.
        clap: the audio-text space.
        silence_C: the codec's latent of silence, laid beyond each clip's end.
    """

    codec: Codec
    clap: Clap
    silence_C: Tensor

    @classmethod
    def load(cls, codec_uri: str, clap: str, encoder: TextEncoder) -> ClapAlignment:
        """The loss with a codec and a CLAP by their locations, for a generator whose prompts `encoder` reads.

        Raises:
            ConfigError: the CLAP was trained on the states of another text encoder.
        """
        codec, heard_by = load_codec(codec_uri), load_clap(clap)
        if encoder.sha256 != heard_by.config.text_encoder_sha256:
            raise ConfigError(
                f"The CLAP {clap!r} reads states of {heard_by.config.text_encoder}, the model those of {encoder.name}.",
                "Set arc.clap_weight=0, or name in arc.clap one that was trained on the model's text encoder.",
            )
        return cls(codec, heard_by, silence_latent(codec))

    def __call__(self, clean_BCT: Tensor, cond: Conditioning, mask_BT: Tensor) -> Tensor:
        """Mean `1 - cos` of the batch, in [0, 2]."""
        whole_BCT = clean_BCT.where(mask_BT[:, None], self.silence_C.to(clean_BCT)[None, :, None])
        heard_BE = self.clap.audio_vectors(self.codec.decode(whole_BCT))
        return 1 - (heard_BE * self.clap.text_vectors(cond.text)).sum(dim=1).mean()
