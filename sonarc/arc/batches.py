"""Batches for ARC: clips with their own and with wrong prompts, a pure function of (seed, step, side)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sonarc.arc.negatives import mismatch
from sonarc.arc.steps import ArcBatch, ArcDraws, Side, WholeBatch, draw_arc
from sonarc.contracts.config import ArcConfig
from sonarc.contracts.errors import DataError
from sonarc.data import BatchPlan, LatentSet
from sonarc.dit import Conditioning
from sonarc.text import TextEncoder
from sonarc.training import LatentBatch, frame_mask

ENCODED_TOGETHER = 256


class ArcData:
    """Serves both sides' batches from latents in memory.

    The order of clips, the choice of captions and the wrong prompts are drawn for the whole batch and
    then cut, so that any number of workers sees the same training.

    Args:
        latents: the train split.
        encoder: the base's text encoder; it remembers prompts.
        config: batch size and seed.
        patch: latent frames a token; true lengths are rounded up to it.

    Raises:
        DataError: latents that are not finite, or clips that all have one concept, so that no prompt is wrong.
    """

    def __init__(self, latents: LatentSet, encoder: TextEncoder, config: ArcConfig, *, patch: int) -> None:
        latents.check_finite()
        if config.contrastive_weight and len(set(latents.concepts)) < 2:
            raise DataError(
                f"All {len(latents)} clips have the concept {latents.concepts[0]!r}: no prompt is wrong for any.",
                "Add clips of other kinds, or set arc.contrastive_weight=0.",
            )
        self.encoder = encoder
        self._latents, self._config, self._patch = latents, config, patch
        self._plan = BatchPlan(latents.weights_N, config.batch, config.seed)
        # An encoder's last digits depend on what is encoded together. All captions in a fixed order, once, so that
        # a resumed training reads the very same states.
        captions = list(dict.fromkeys(caption for clip in latents.captions for caption in clip))
        for start in range(0, len(captions), ENCODED_TOGETHER):
            encoder(captions[start : start + ENCODED_TOGETHER])

    def __call__(self, step: int, side: Side, part: slice = slice(None)) -> tuple[ArcBatch, ArcDraws]:
        """One side's batch and draws at a step, or a worker's part of them. Both sides never share a batch."""
        latents, ode = self._latents, self._config.ode_warmup
        if step < ode.steps:
            step -= step % ode.refresh  # a batch of trajectories serves several steps
        turn = 2 * step + (side == "generator")
        items_B = self._plan.items(turn)
        captions = [
            latents.captions[item][self._plan.caption(turn, int(item), len(latents.captions[item]))] for item in items_B
        ]
        negatives = mismatch(
            [latents.concepts[item] for item in items_B],
            [latents.keys[item] for item in items_B],
            captions,
            np.random.default_rng([self._config.seed, turn]),
        )
        shape = (len(items_B), *latents.latents_NCT.shape[1:])
        unlike_G = torch.from_numpy(negatives.valid_B)
        return (
            ArcBatch(
                real=self._real(items_B[part], captions[part]),
                wrong=self.encoder([captions[i] for i in negatives.order_B[part]]),
                unlike_B=unlike_G[part],
                of=WholeBatch(self._mask(items_B), unlike_G),
            ),
            draw_arc(self._config, step, side, shape).part(part),
        )

    def _real(self, items_B: np.ndarray, captions: Sequence[str]) -> LatentBatch:
        latents = self._latents
        x0_BCT = torch.from_numpy(latents.latents_NCT[items_B].astype(np.float32))
        seconds_B = torch.from_numpy(latents.seconds_N[items_B])
        return LatentBatch(x0_BCT, self._mask(items_B), Conditioning(self.encoder(captions), seconds_B))

    def _mask(self, items_B: np.ndarray) -> Tensor:
        latents = self._latents
        frames_B = torch.from_numpy(-(-latents.frames_N[items_B] // self._patch) * self._patch)
        return frame_mask(frames_B, latents.latents_NCT.shape[2])
