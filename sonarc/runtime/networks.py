"""What a request passes through after its text is read: the DiT and the codec, as they are or in their fast forms."""

from __future__ import annotations

from dataclasses import dataclass

from sonarc.codec.interface import Codec
from sonarc.codec.oobleck import OobleckCodec
from sonarc.dit import DiT
from sonarc.runtime.captured import Graphs
from sonarc.runtime.fast_dit import FastDiT
from sonarc.runtime.fast_oobleck import FastOobleck
from sonarc.runtime.graphed import GraphedCodec, GraphedDiT


@dataclass(frozen=True)
class Networks:
    """A model and the codec whose latents it makes."""

    model: DiT | FastDiT | GraphedDiT
    codec: Codec

    def fast(self) -> Networks:
        """The same with equal results but for bfloat16's rounding; later changes of the weights are not seen."""
        if not isinstance(self.model, DiT):
            return self
        model, codec = FastDiT(self.model), self.codec
        if isinstance(codec, OobleckCodec) and all(stride % 2 == 0 for stride in codec.config.strides):
            codec = FastOobleck(codec)
        if model.device.type != "cuda":
            return Networks(model, codec)
        graphs = Graphs()
        return Networks(GraphedDiT(model, graphs), GraphedCodec(codec, graphs))
