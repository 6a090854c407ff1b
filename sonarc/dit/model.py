"""The diffusion transformer: a velocity model of latents, with a tap on its inner states.

With `global_cond="prepend"` and `patch=1` it is the network of Stable Audio Open Small, weight for
weight: `PUBLISHED_PREFIXES` maps our state-dict keys to the published ones.

Shapes: B batch, C latent channels, T latent frames, N tokens (T / patch), D width, L text tokens.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sonarc.contracts.config import DiTConfig
from sonarc.contracts.errors import ModelInputError
from sonarc.dit.attention import padding_bias
from sonarc.dit.conditioning import Conditioning, DurationEmbedder, FourierFeatures, PromptProjection
from sonarc.dit.transformer import Transformer

TIME_FEATURES = 256
PUBLISHED_PREFIXES = {"conditioners.": "conditioner.conditioners.", "": "model.model."}
"""Prefix of our keys → prefix of the published keys; the first that fits counts."""


class DiT(nn.Module):
    """Velocity `v(x_t, t, c)` of a rectified flow, `x_t = (1−t)·x0 + t·ε`, `v ≈ ε − x0`.

    Args:
        config: shape of the network.
        text_width: width of the text encoder's states.
        recompute: recompute each block's activations in the backward pass, to save memory.
    """

    def __init__(self, config: DiTConfig, text_width: int, *, recompute: bool = False) -> None:
        super().__init__()
        self.config, self.text_width, self.recompute = config, text_width, recompute
        width, channels = config.width, config.latent_channels
        self.timestep_features = FourierFeatures(TIME_FEATURES)
        self.to_timestep_embed = nn.Sequential(nn.Linear(TIME_FEATURES, width), nn.SiLU(), nn.Linear(width, width))
        self.to_cond_embed = _mlp(config.cond_width, width)
        self.to_global_embed = _mlp(config.cond_width, width)
        self.to_pooled_embed = _mlp(config.cond_width, width) if config.global_cond == "adaln" else None
        self.preprocess_conv = nn.Conv1d(channels, channels, 1, bias=False)
        self.postprocess_conv = nn.Conv1d(channels, channels, 1, bias=False)
        nn.init.zeros_(self.preprocess_conv.weight)
        nn.init.zeros_(self.postprocess_conv.weight)
        self.transformer = Transformer(
            channels * config.patch, width, config.depth, config.heads, config.ff_mult, config.global_cond
        )
        self.conditioners = nn.ModuleDict(
            {
                "prompt": PromptProjection(text_width, config.cond_width),
                "seconds_total": DurationEmbedder(config.cond_width, config.max_seconds),
            }
        )

    def forward(self, x_BCT: Tensor, t_B: Tensor, cond: Conditioning, *, mask_BT: Tensor | None = None) -> Tensor:
        """The velocity at `x_BCT`.

        Args:
            x_BCT: noisy latents; T is a multiple of the patch.
            t_B: noise levels in [0, 1]; 1 is pure noise.
            cond: text and duration of each clip.
            mask_BT: True at true frames. The others influence nothing; their own output means nothing.

        Returns:
            Velocity, same shape and dtype as `x_BCT`.

        Raises:
            ModelInputError: shapes that do not fit the model or each other.
        """
        return self._velocity(x_BCT, *self._states(x_BCT, t_B, cond, mask_BT, self.config.depth))

    def velocity(self, x_BCT: Tensor, t_B: Tensor, cross_attn_cond: Tensor, global_embed: Tensor) -> Tensor:
        """The velocity under conditioning tensors of one's own, as published models take them.

        Args:
            x_BCT, t_B: as for `forward`.
            cross_attn_cond: `(B, M, E)` with E = `cond_width`: text states, then the duration's embedding.
            global_embed: `(B, E)`: the duration's embedding.

        Raises:
            ModelInputError: the model pools its text (`global_cond="adaln"`), which these tensors do not hold.
        """
        if self.to_pooled_embed is not None:
            raise ModelInputError(
                "A model with global_cond 'adaln' also reads pooled text.", "Call it with a Conditioning."
            )
        h_BND, global_BD = self._run(x_BCT, t_B, cross_attn_cond, global_embed, None, None, self.config.depth)
        return self._velocity(x_BCT, h_BND, global_BD)

    def features(
        self, x_BCT: Tensor, t_B: Tensor, cond: Conditioning, *, depth: int, mask_BT: Tensor | None = None
    ) -> Tensor:
        """Token states `(B, N, D)` after the first `depth` blocks, without prepended tokens.

        Raises:
            ModelInputError: as for `forward`, or `depth` outside [1, the model's depth].
        """
        if not 1 <= depth <= self.config.depth:
            raise ModelInputError(
                f"Features after {depth} blocks were asked of a model of {self.config.depth}.",
                f"Choose a depth from 1 to {self.config.depth}.",
            )
        return self._states(x_BCT, t_B, cond, mask_BT, depth)[0]

    def tokens(self, frames: int, *, depth: int) -> int:
        """Tokens N of clips of so many latent frames, after any depth."""
        return frames // self.config.patch

    @property
    def feature_width(self) -> int:
        """Width D of the token states that `features` gives."""
        return self.config.width

    def trunk(self, depth: int) -> DiT:
        """A copy for its features alone: the first `depth` blocks, without what only the velocity needs.

        Every parameter left takes part in `features(…, depth=depth)`; `forward` is no longer of use.
        """
        copied = copy.deepcopy(self)
        copied.config = self.config.model_copy(update={"depth": depth})
        del copied.transformer.layers[depth:]
        copied.transformer.project_out = None  # type: ignore[assignment]
        copied.transformer.final_norm = copied.transformer.final_modulation = None
        copied.postprocess_conv = None  # type: ignore[assignment]
        return copied

    def _velocity(self, x_BCT: Tensor, h_BND: Tensor, global_BD: Tensor) -> Tensor:
        out_BNC = self.transformer.out(h_BND, global_BD)
        frames_BTC = from_patches(out_BNC, self.config.patch)
        frames_BTC = frames_BTC + _pointwise(self.postprocess_conv, frames_BTC)
        return frames_BTC.transpose(1, 2).to(x_BCT.dtype)

    def _states(
        self, x_BCT: Tensor, t_B: Tensor, cond: Conditioning, mask_BT: Tensor | None, depth: int
    ) -> tuple[Tensor, Tensor]:
        self.check(x_BCT, t_B, cond, mask_BT)
        return self._run(x_BCT, t_B, *self.condition(cond), mask_BT, depth)

    def _run(
        self,
        x_BCT: Tensor,
        t_B: Tensor,
        context_BME: Tensor,
        global_BE: Tensor,
        pooled_BE: Tensor | None,
        mask_BT: Tensor | None,
        depth: int,
    ) -> tuple[Tensor, Tensor]:
        context_BMD = self.to_cond_embed(context_BME)
        global_BD = self.to_timestep_embed(self.timestep_features(t_B)) + self.to_global_embed(global_BE)
        if self.to_pooled_embed is not None and pooled_BE is not None:
            global_BD = global_BD + self.to_pooled_embed(pooled_BE)
        frames_BTC = x_BCT.transpose(1, 2)
        frames_BTC = frames_BTC + _pointwise(self.preprocess_conv, frames_BTC)
        h_BND = self.transformer.project_in(as_patches(frames_BTC, self.config.patch))
        mask_BN = None if mask_BT is None else mask_BT.reshape(len(mask_BT), -1, self.config.patch).any(-1)
        prepended = self.config.global_cond == "prepend"
        if prepended:
            h_BND = torch.cat((global_BD[:, None].to(h_BND.dtype), h_BND), dim=1)
            mask_BN = None if mask_BN is None else F.pad(mask_BN, (1, 0), value=True)
        bias = None if mask_BN is None or bool(mask_BN.all()) else padding_bias(mask_BN)
        h_BND = self.transformer.run(h_BND, context_BMD, global_BD, bias, depth=depth, recompute=self.recompute)
        return h_BND[:, int(prepended) :], global_BD

    def condition(self, cond: Conditioning) -> tuple[Tensor, Tensor, Tensor]:
        """The sequence that cross-attention reads, the global condition, and the pooled text, before projection.

        A null text leaves the whole sequence zero, its duration token too, as in published models' guidance; the
        global condition keeps the duration.
        """
        text = self.conditioners["prompt"](cond.text)
        duration_BE = self.conditioners["seconds_total"](cond.seconds_B)
        asked_B1 = text.mask_BL.any(dim=1, keepdim=True)
        context_BME = torch.cat((text.tokens_BLE, (duration_BE * asked_B1)[:, None]), dim=1)
        return context_BME, duration_BE, text.pooled()

    def check(self, x_BCT: Tensor, t_B: Tensor, cond: Conditioning, mask_BT: Tensor | None) -> None:
        """Refuse what `forward` cannot take.

        Raises:
            ModelInputError: shapes that do not fit the model or each other.
        """
        channels, patch = self.config.latent_channels, self.config.patch
        if x_BCT.ndim != 3 or x_BCT.shape[1] != channels or x_BCT.shape[2] == 0 or x_BCT.shape[2] % patch:
            raise ModelInputError(
                f"Latents of shape {tuple(x_BCT.shape)} do not fit a model of {channels} channels and patch {patch}.",
                f"Give (batch, {channels}, frames) with frames a positive multiple of {patch}.",
            )
        batch = x_BCT.shape[0]
        if t_B.shape != (batch,) or len(cond) != batch or cond.seconds_B.shape != (batch,):
            raise ModelInputError(
                f"A batch of {batch} latents came with {tuple(t_B.shape)} noise levels, {len(cond)} prompts "
                f"and {tuple(cond.seconds_B.shape)} durations.",
                "Give one of each for every clip.",
            )
        if cond.text.tokens_BLE.shape[-1] != self.text_width:
            raise ModelInputError(
                f"Text states are {cond.text.tokens_BLE.shape[-1]} wide, the model was made for {self.text_width}.",
                "Use the text encoder the model was trained with.",
            )
        if mask_BT is not None and mask_BT.shape != (batch, x_BCT.shape[2]):
            raise ModelInputError(
                f"A mask of shape {tuple(mask_BT.shape)} does not fit latents of shape {tuple(x_BCT.shape)}.",
                "Give one flag a frame.",
            )


def _mlp(width_in: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width_in, width, bias=False), nn.SiLU(), nn.Linear(width, width, bias=False))


def as_patches(frames_BTC: Tensor, patch: int) -> Tensor:
    """Each `patch` frames as one token, channel by channel: `(B, T / patch, C · patch)`."""
    batch, frames, channels = frames_BTC.shape
    return frames_BTC.reshape(batch, frames // patch, patch, channels).transpose(2, 3).flatten(2)


def from_patches(tokens_BNC: Tensor, patch: int) -> Tensor:
    """The inverse of `as_patches`."""
    batch, tokens, width = tokens_BNC.shape
    return tokens_BNC.reshape(batch, tokens, width // patch, patch).transpose(2, 3).flatten(1, 2)


def _pointwise(conv: nn.Conv1d, frames_BTC: Tensor) -> Tensor:
    """A kernel-1 convolution, as the matrix product it is (several times faster on a CPU)."""
    return F.linear(frames_BTC, conv.weight[:, :, 0])
