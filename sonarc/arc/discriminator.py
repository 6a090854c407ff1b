"""The discriminator: the first blocks of the pre-trained model, and a head that scores along time.

It judges re-noised latents `x_s` at level s under a prompt, so what the pre-trained model knows of noisy
latents and of text is where it starts from.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from sonarc.arc.heads import make_head
from sonarc.contracts.config import HeadConfig
from sonarc.contracts.errors import ModelInputError
from sonarc.dit import Conditioning


@runtime_checkable
class FeatureModel(Protocol):
    """A velocity model with a feature tap; the DiT is one."""

    @property
    def feature_width(self) -> int:
        """Channels D of the features."""

    def trunk(self, depth: int) -> FeatureModel:
        """A copy of the first `depth` blocks, a feature model itself."""

    def tokens(self, frames: int, *, depth: int) -> int:
        """Tokens N that `features` makes of clips of so many latent frames."""

    def features(
        self, x_BCT: Tensor, t_B: Tensor, cond: Conditioning, *, depth: int, mask_BT: Tensor | None = None
    ) -> Tensor:
        """Token states `(B, N, D)` after the first `depth` blocks."""


class Discriminator(nn.Module):
    """`D(x_s, s, c)`: scores `(B, M)`, high on real and matched latents."""

    def __init__(self, base: FeatureModel, depth: int, head: HeadConfig) -> None:
        """
        Args:
            base: the pre-trained model; it is copied, not changed.
            depth: blocks to keep.
            head: which head, and its size.
        """
        super().__init__()
        self.shortest = head.shortest
        self.depth = depth
        self.trunk: FeatureModel = base.trunk(depth)
        self.head = make_head(head, base.feature_width)
        self.requires_grad_(True).train()  # the base may come frozen

    def forward(self, x_BCT: Tensor, s_B: Tensor, cond: Conditioning, *, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Scores `(B, M)` and their validity `(B, M)` in [0, 1], both float32.

        Args:
            x_BCT: re-noised latents.
            s_B: their noise levels.
            mask_BT: True on true frames.

        Raises:
            ModelInputError: the sequence is shorter than the head.
        """
        valid_BN = self._valid(mask_BT)
        h_BND = self.trunk.features(x_BCT, s_B, cond, depth=self.depth, mask_BT=mask_BT)
        score_BM, weight_BM = self.head(h_BND.mT, valid_BN)
        return score_BM.float(), weight_BM

    def weights(self, mask_BT: Tensor) -> Tensor:
        """The validity `(B, M)` of the scores of clips with these masks, without any scores."""
        return self.head.weights(self._valid(mask_BT))  # type: ignore[operator, no-any-return]

    def _valid(self, mask_BT: Tensor) -> Tensor:
        """Validity `(B, N)` of the tokens."""
        tokens = self.trunk.tokens(mask_BT.shape[1], depth=self.depth)
        if tokens < self.shortest:
            raise ModelInputError(
                f"The discriminator's head needs {self.shortest} tokens, the latents have {tokens}.",
                "Use longer clips, or fewer stages in arc.head.",
            )
        return mask_BT.reshape(len(mask_BT), tokens, -1).any(dim=2).float()
