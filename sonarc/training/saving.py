"""Checkpoints written behind the training's back: it waits for a copy of its tensors, not for the store."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from sonarc.checkpoint import prune_checkpoints, save_checkpoint

KEEP = 2
"""Checkpoints kept while training: the newest, and one to fall back on."""


class Saver:
    """Writes one checkpoint at a time, each while the training goes on.

    Args:
        checkpoints: URI of the folder that holds the training's checkpoints.
        attempt: number of this attempt.
    """

    def __init__(self, checkpoints: str, attempt: int) -> None:
        self._checkpoints, self._attempt = checkpoints, attempt
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future[None] | None = None

    def save(
        self, *, model: Mapping[str, Tensor], state: Mapping[str, Mapping[str, Tensor]], **checkpoint: Any
    ) -> None:
        """Begin to write what `TrainingWorker.save` is given, once the one before is done.

        Raises:
            CheckpointError: a newer attempt has taken over. StoreError: the store is full or refuses. Both may be of
                the checkpoint before.
        """
        self.finish()
        copies = {name: _copied(tensors) for name, tensors in state.items()}
        self._writing = self._thread.submit(self._write, model=_copied(model), state=copies, **checkpoint)

    def finish(self) -> None:
        """Wait for the last checkpoint.

        Raises:
            CheckpointError, StoreError: as `save`.
        """
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()

    def _write(self, **checkpoint: Any) -> None:
        save_checkpoint(self._checkpoints, attempt=self._attempt, **checkpoint)
        prune_checkpoints(self._checkpoints, keep=KEEP)


@torch.no_grad()
def _copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors in memory of their own: the next step changes the training's."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
