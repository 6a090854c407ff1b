"""What the rest of Sonarc knows of a text encoder.

Shapes: B prompts, L tokens, E width of the encoder's states.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from sonarc.contracts.errors import ModelInputError

REMEMBERED = 20_000
"""Prompts an encoder remembers: about 20 kB each."""


@dataclass(frozen=True)
class TextStates:
    """Encoded prompts, always padded to the encoder's `max_tokens`.

    Attributes:
        tokens_BLE: float32 token states, exactly zero at padding.
        mask_BL: True at the prompt's own tokens.
    """

    tokens_BLE: Tensor
    mask_BL: Tensor

    def __len__(self) -> int:
        return self.tokens_BLE.shape[0]

    def __getitem__(self, items: slice | Tensor) -> TextStates:
        """The states of some prompts: a slice, integer positions or a boolean mask over B."""
        return TextStates(self.tokens_BLE[items], self.mask_BL[items])

    def to(self, device: torch.device | str) -> TextStates:
        """The same states on another device."""
        return TextStates(self.tokens_BLE.to(device), self.mask_BL.to(device))

    def null(self) -> TextStates:
        """The null text of classifier-free guidance: zeros in place of every token."""
        return TextStates(torch.zeros_like(self.tokens_BLE), torch.zeros_like(self.mask_BL))

    def dropped(self, drop_B: Tensor) -> TextStates:
        """The states with the prompts marked True in `drop_B` replaced by the null text."""
        keep = ~drop_B
        return TextStates(self.tokens_BLE * keep[:, None, None], self.mask_BL & keep[:, None])

    def pooled(self) -> Tensor:
        """Mean state of each prompt's own tokens `(B, E)`; zeros for the null text."""
        return self.tokens_BLE.sum(1) / self.mask_BL.sum(1, keepdim=True).clamp(min=1)


def concatenate(parts: Sequence[TextStates]) -> TextStates:
    """Several batches of states as one."""
    return TextStates(torch.cat([p.tokens_BLE for p in parts]), torch.cat([p.mask_BL for p in parts]))


@runtime_checkable
class TextEncoder(Protocol):
    """Frozen prompts → token states."""

    @property
    def name(self) -> str:
        """Kind of the encoder, such as `minilm`."""

    @property
    def sha256(self) -> str:
        """Hash of its weights: states of different hashes are not interchangeable."""

    @property
    def width(self) -> int:
        """Width E of a token state."""

    @property
    def max_tokens(self) -> int:
        """Length L of every encoded prompt; longer ones are cut."""

    def __call__(self, prompts: Sequence[str]) -> TextStates:
        """States of some prompts, at least one."""


def check_prompts(prompts: Sequence[str]) -> None:
    """Refuse what no encoder can read.

    Raises:
        ModelInputError: no prompt at all, something that is no text, or text that UTF-8 cannot hold.
    """
    if isinstance(prompts, str) or not prompts:
        raise ModelInputError(
            f"Expected a sequence of prompts, got {prompts!r}.", "Give at least one prompt in a list."
        )
    for prompt in prompts:
        if not isinstance(prompt, str):
            raise ModelInputError(f"A prompt is {prompt!r}, which is no text.", "Give every prompt as a string.")
        try:
            prompt.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ModelInputError(
                f"A prompt holds a character that is no valid Unicode, at position {error.start}.", "Remove it."
            ) from error


class StatesCache:
    """Remembers encoded prompts: captions repeat in training, and prompts in serving.

    Keeps only each prompt's own tokens, in float32 on the CPU, for the `limit` most recent prompts.
    """

    def __init__(self, max_tokens: int, width: int, *, limit: int = REMEMBERED) -> None:
        self._max_tokens, self._width, self._limit = max_tokens, width, limit
        self._known: dict[str, Tensor] = {}

    def missing(self, prompts: Sequence[str]) -> list[str]:
        """The distinct prompts that are not remembered yet, in order of appearance."""
        return [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._known]

    def add(self, prompts: Sequence[str], states: TextStates) -> None:
        """Remember the states of some prompts."""
        for prompt, tokens_LE, mask_L in zip(prompts, states.tokens_BLE, states.mask_BL, strict=True):
            self._known[prompt] = tokens_LE[mask_L].clone()

    def states(self, prompts: Sequence[str]) -> TextStates:
        """The states of prompts that are all remembered."""
        tokens_BLE = torch.zeros(len(prompts), self._max_tokens, self._width)
        mask_BL = torch.zeros(len(prompts), self._max_tokens, dtype=torch.bool)
        for row, prompt in enumerate(prompts):
            known_LE = self._known[prompt]
            tokens_BLE[row, : len(known_LE)] = known_LE
            mask_BL[row, : len(known_LE)] = True
        return TextStates(tokens_BLE, mask_BL)

    def shrink(self) -> None:
        """Forget the oldest prompts beyond the limit."""
        for prompt in list(self._known)[: max(0, len(self._known) - self._limit)]:
            del self._known[prompt]
