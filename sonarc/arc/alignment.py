"""The embedding-alignment (CLAP) loss: what the generator makes should lie near its prompt in an audio-text space.

Source: Stable Audio 3, arXiv 2605.17991, adds such a term to the generator's ARC loss.
Shapes: B clips, C latent channels, T latent frames, A audio channels, S samples, E dimensions of the space.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sonarc.codec.interface import Codec
from sonarc.contracts.errors import ConfigError
from sonarc.dit import Conditioning
from sonarc.metrics.embedders.clap import Clap
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

    def check(self, encoder: TextEncoder) -> None:
        """The generator's prompts are read by the CLAP too.

        Raises:
            ConfigError: it was trained on the states of another text encoder.
        """
        if encoder.sha256 != self.clap.config.text_encoder_sha256:
            raise ConfigError(
                f"The CLAP of arc.clap reads states of {self.clap.config.text_encoder}, the model those of "
                f"{encoder.name}.",
                "Set arc.clap_weight=0, or name a CLAP that was trained on the model's text encoder.",
            )

    def __call__(self, clean_BCT: Tensor, cond: Conditioning, mask_BT: Tensor) -> Tensor:
        """Mean `1 - cos` of the batch, in [0, 2]."""
        whole_BCT = clean_BCT.where(mask_BT[:, None], self.silence_C.to(clean_BCT)[None, :, None])
        heard_BE = self.clap.audio_vectors(self.codec.decode(whole_BCT))
        return 1 - (heard_BE * self.clap.text_vectors(cond.text)).sum(dim=1).mean()
