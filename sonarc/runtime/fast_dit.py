"""The DiT for generation alone: what noise does not touch is computed once a request, and nothing is kept behind.

The same network as `sonarc.dit`, of whose modules it takes its weights, in bfloat16, on a CPU or a GPU. Unlike
`DiT.forward`:

- linear layers are packed (`sonarc.runtime.packed`), with activations, gates and residuals in their epilogues;
- the conditioning, every block's cross-attention keys and values, and the rotary tables are made once a request and
  serve all its steps, both halves of a guided batch included;
- queries and keys are normed and rotated together, the norm's gain and shift folded into the rotary tables.

Shapes: B batch, C latent channels, T latent frames, N tokens, M conditioning tokens, D width, H heads, K width of a
head, R rotated channels of a head.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sonarc.dit import Conditioning, DiT
from sonarc.dit.attention import QK_NORM_EPS, attend, padding_bias
from sonarc.dit.model import as_patches, from_patches
from sonarc.dit.transformer import LAYER_NORM_EPS, Block, LayerNorm, Modulation, modulate
from sonarc.runtime.device import device_of
from sonarc.runtime.packed import PackedLinear


@dataclass(frozen=True)
class _Norm:
    """A layer norm's parameters in bfloat16; `gain` None: none."""

    gain: Tensor | None
    shift: Tensor | None
    eps: float

    @classmethod
    def of(cls, norm: nn.Module) -> _Norm:
        if isinstance(norm, LayerNorm):
            return cls(norm.gamma.detach().to(torch.bfloat16), norm.beta.to(torch.bfloat16), LAYER_NORM_EPS)
        assert isinstance(norm, nn.LayerNorm)
        return cls(norm.weight.detach().to(torch.bfloat16), norm.bias.detach().to(torch.bfloat16), norm.eps)

    def __call__(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self.gain, self.shift, self.eps)


@dataclass(frozen=True)
class _Turn:
    """A normed query's and key's gain, shift and rotation in one: `own·x + partner·x′ + shift`.

    x′ is the channel with which x turns, half a rotation away. Each table is `(N, 2, 1, …)`: positions, query or key,
    and the same for all heads.

    Attributes:
        own: factor of every channel `(N, 2, 1, K)`.
        partner: factor of the partner, `(N, 2, 1, R)`.
        shift: what is added `(N, 2, 1, K)`.
    """

    own: Tensor
    partner: Tensor
    shift: Tensor

    def __call__(self, x_BN2HK: Tensor) -> Tensor:
        rotated = self.partner.shape[-1]
        half = rotated // 2
        out = torch.addcmul(self.shift, x_BN2HK, self.own)
        out[..., :half].addcmul_(x_BN2HK[..., half:rotated], self.partner[..., :half])
        out[..., half:rotated].addcmul_(x_BN2HK[..., :half], self.partner[..., half:])
        return out


class _Turns:
    """What norms and turns the queries and keys of every block: the tables of all blocks at once."""

    def __init__(self, norms: Sequence[tuple[nn.LayerNorm, nn.LayerNorm]]) -> None:
        self._gain_Z2K, self._shift_Z2K = (
            torch.stack([torch.stack([getattr(n, name).detach().float() for n in pair]) for pair in norms])
            for name in ("weight", "bias")
        )

    def __call__(self, cos_NR: Tensor, sin_NR: Tensor) -> list[_Turn]:
        """A turn a block, for N positions."""
        positions, rotated = cos_NR.shape
        half, head = rotated // 2, self._gain_Z2K.shape[-1]
        cos_N1K = torch.ones(positions, 1, head, device=cos_NR.device)
        cos_N1K[:, 0, :rotated] = cos_NR
        signed_N1R = torch.cat((-sin_NR[:, :half], sin_NR[:, half:]), -1)[:, None]

        def swapped(x: Tensor) -> Tensor:
            return torch.cat((x[..., half:rotated], x[..., :half]), -1)

        gain_Z12K, shift_Z12K = self._gain_Z2K[:, None], self._shift_Z2K[:, None]
        shift_ZN2K = shift_Z12K * cos_N1K
        shift_ZN2K[..., :rotated] += swapped(shift_Z12K) * signed_N1R
        tables = (gain_Z12K * cos_N1K, swapped(gain_Z12K) * signed_N1R, shift_ZN2K)
        parts = (table[:, :, :, None].to(torch.bfloat16).unbind() for table in tables)
        return [_Turn(*tensors) for tensors in zip(*parts, strict=True)]


@dataclass(frozen=True)
class Request:
    """What all steps of a request share.

    Attributes:
        cond, mask_BT, frames: what was asked.
        global_BD: the global condition without the noise level, float32.
        context: keys and values `(B, H, M, K)` of every block's cross-attention.
        turns: rotary tables of every block's self-attention.
        bias_B11N: additive mask of padding; None: there is none.
    """

    cond: Conditioning
    mask_BT: Tensor | None
    frames: int
    global_BD: Tensor
    context: list[tuple[Tensor, Tensor]]
    turns: list[_Turn]
    bias_B11N: Tensor | None

    def serves(self, cond: Conditioning, mask_BT: Tensor | None, frames: int) -> bool:
        """Whether a step belongs to this request: samplers hand the same objects to every step."""
        return self.cond is cond and self.mask_BT is mask_BT and self.frames == frames


class FastDiT:
    """Called as a `DiT` is, with equal results but for rounding: `model(x_BCT, t_B, cond, mask_BT=…)`.

    Args:
        model: the network; later changes of its weights are not seen.

    Attributes:
        config: the network's.
        device: where its weights lie, and its inputs must.
    """

    def __init__(self, model: DiT) -> None:
        self.device, self.check = device_of(model), model.check
        self._model, self.config = model, model.config
        transformer = model.transformer
        before, after = (_with_residual(c, model.config.patch) for c in (model.preprocess_conv, model.postprocess_conv))
        self._project_in = PackedLinear(transformer.project_in.weight @ before)
        self._project_out = PackedLinear(after @ transformer.project_out.weight)
        blocks = list(cast("Iterable[Block]", transformer.layers))
        self._blocks = [_FastBlock(block) for block in blocks]
        self._turns = _Turns([(block.self_attn.q_norm, block.self_attn.k_norm) for block in blocks])
        self._final: tuple[_Norm, _FastModulation] | None = None
        if transformer.final_norm is not None and transformer.final_modulation is not None:
            self._final = _Norm.of(transformer.final_norm), _FastModulation(transformer.final_modulation)
        self._request: Request | None = None

    @torch.inference_mode()
    def __call__(self, x_BCT: Tensor, t_B: Tensor, cond: Conditioning, *, mask_BT: Tensor | None = None) -> Tensor:
        """The velocity at `x_BCT`; arguments, result and errors as of `DiT.forward`.

        A mask costs attention its fastest kernels: leave it away where every frame is a true one.
        """
        self.check(x_BCT, t_B, cond, mask_BT)
        request = self._request
        if request is None or not request.serves(cond, mask_BT, x_BCT.shape[2]):
            request = self._request = self.prepare(cond, mask_BT, x_BCT.shape[2])
        return self.step(x_BCT, t_B, request)

    @torch.inference_mode()
    def step(self, x_BCT: Tensor, t_B: Tensor, request: Request) -> Tensor:
        """The velocity at `x_BCT` of what was prepared. It reads nothing back from the device, nor does `prepare`."""
        model, patch = self._model, self.config.patch
        global_BD = (request.global_BD + model.to_timestep_embed(model.timestep_features(t_B))).to(torch.bfloat16)
        h_BND = self._project_in(as_patches(x_BCT.transpose(1, 2), patch).to(torch.bfloat16))
        prepended = self.config.global_cond == "prepend"
        if prepended:
            h_BND = torch.cat((global_BD[:, None], h_BND), dim=1)
        for block, context, turn in zip(self._blocks, request.context, request.turns, strict=True):
            h_BND = block(h_BND, context, global_BD, turn, request.bias_B11N)
        if prepended:
            h_BND = h_BND[:, 1:].contiguous()
        if self._final is not None:
            norm, modulation = self._final
            h_BND = modulate(norm(h_BND), *modulation(global_BD))
        return from_patches(self._project_out(h_BND), patch).transpose(1, 2).to(x_BCT.dtype)

    @torch.inference_mode()
    def prepare(self, cond: Conditioning, mask_BT: Tensor | None, frames: int) -> Request:
        """What all steps under this conditioning share."""
        model, prepended = self._model, self.config.global_cond == "prepend"
        context_BME, global_BE, pooled_BE = model.condition(cond)
        context_BMD = model.to_cond_embed(context_BME).to(torch.bfloat16)
        global_BD = model.to_global_embed(global_BE)
        if model.to_pooled_embed is not None:
            global_BD = global_BD + model.to_pooled_embed(pooled_BE)
        mask_BN = None if mask_BT is None else mask_BT.reshape(len(mask_BT), -1, model.config.patch).any(-1)
        if mask_BN is not None and prepended:
            mask_BN = F.pad(mask_BN, (1, 0), value=True)
        tokens = frames // model.config.patch + int(prepended)
        rotary = model.transformer.rotary_pos_emb(tokens)
        return Request(
            cond,
            mask_BT,
            frames,
            global_BD,
            [block.context(context_BMD) for block in self._blocks],
            self._turns(*rotary),
            None if mask_BN is None else padding_bias(mask_BN).to(torch.bfloat16),
        )


class _FastModulation:
    def __init__(self, modulation: Modulation) -> None:
        self._parts, self._linear = modulation.parts, PackedLinear.of(modulation.linear)

    def __call__(self, global_BD: Tensor) -> tuple[Tensor, ...]:
        return self._linear(F.silu(global_BD))[:, None].chunk(self._parts, dim=-1)


class _FastBlock:
    """One `Block`, its linear layers packed."""

    def __init__(self, block: Block) -> None:
        own, cross = block.self_attn, block.cross_attn
        self._heads = own.heads
        self._own_norm, self._cross_norm = _Norm.of(block.pre_norm), _Norm.of(block.cross_attend_norm)
        self._ff_norm, self._q_norm, self._k_norm = map(_Norm.of, (block.ff_norm, cross.q_norm, cross.k_norm))
        self._qkv, self._own_out = PackedLinear.of(own.to_qkv), PackedLinear.of(own.to_out)
        self._q, self._kv = PackedLinear.of(cross.to_q), PackedLinear.of(cross.to_kv)
        self._cross_out = PackedLinear.of(cross.to_out)
        joined, last = block.ff.linears()
        (value, gate), (value_bias, gate_bias) = joined.weight.chunk(2), joined.bias.chunk(2)
        self._value, self._gate = PackedLinear(value, value_bias), PackedLinear(gate, gate_bias)
        self._ff_out = PackedLinear.of(last)
        self._modulation = None if block.modulation is None else _FastModulation(block.modulation)

    def __call__(
        self,
        h_BND: Tensor,
        context: tuple[Tensor, Tensor],
        global_BD: Tensor,
        turn: _Turn,
        bias_B11N: Tensor | None,
    ) -> Tensor:
        if self._modulation is None:
            attended_BND = self._attended(self._own_norm(h_BND), turn, bias_B11N)
            h_BND = self._crossed(self._own_out.with_other(attended_BND, h_BND, "add"), context)
            return self._ff_out.with_other(self._hidden(self._ff_norm(h_BND)), h_BND, "add")
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = self._modulation(global_BD)
        x_BND = modulate(self._own_norm(h_BND), shift_a, scale_a)
        h_BND = torch.addcmul(h_BND, gate_a, self._own_out(self._attended(x_BND, turn, bias_B11N)))
        h_BND = self._crossed(h_BND, context)
        x_BND = modulate(self._ff_norm(h_BND), shift_f, scale_f)
        return torch.addcmul(h_BND, gate_f, self._ff_out(self._hidden(x_BND)))

    def context(self, context_BMD: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the cross-attention, `(B, H, M, K)`."""
        k_BMHK, v_BMHK = self._heads_of(self._kv(context_BMD), 2).unbind(2)
        return self._k_norm(k_BMHK).transpose(1, 2).contiguous(), v_BMHK.transpose(1, 2).contiguous()

    def _attended(self, x_BND: Tensor, turn: _Turn, bias_B11N: Tensor | None) -> Tensor:
        qkv_BN3HK = self._heads_of(self._qkv(x_BND), 3)
        normed_BN2HK = F.layer_norm(qkv_BN3HK[:, :, :2], qkv_BN3HK.shape[-1:], eps=QK_NORM_EPS)
        q_BHNK, k_BHNK = turn(normed_BN2HK).permute(2, 0, 3, 1, 4)
        out_BHNK = attend(q_BHNK, k_BHNK, qkv_BN3HK[:, :, 2].transpose(1, 2), bias_B11N)
        return out_BHNK.transpose(1, 2).flatten(2)

    def _heads_of(self, x_BND: Tensor, parts: int) -> Tensor:
        """`(B, N, parts, H, K)`."""
        batch, tokens, _ = x_BND.shape
        return x_BND.view(batch, tokens, parts, self._heads, -1)

    def _crossed(self, h_BND: Tensor, context: tuple[Tensor, Tensor]) -> Tensor:
        q_BNHK = self._q_norm(self._heads_of(self._q(self._cross_norm(h_BND)), 1)[:, :, 0])
        out_BHNK = attend(q_BNHK.transpose(1, 2), *context, None)
        return self._cross_out.with_other(out_BHNK.transpose(1, 2).flatten(2), h_BND, "add")

    def _hidden(self, x_BND: Tensor) -> Tensor:
        return self._value.with_other(x_BND, self._gate(x_BND, "swish"), "mul")


def _with_residual(conv: nn.Conv1d, patch: int) -> Tensor:
    """`x + conv(x)`, a kernel-1 convolution of frames, as one matrix on tokens of `patch` frames."""
    device = conv.weight.device
    mixing_CC = torch.eye(conv.weight.shape[0], device=device) + conv.weight[:, :, 0].detach().float()
    return torch.kron(mixing_CC, torch.eye(patch, device=device))
