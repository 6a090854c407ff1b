"""A T5 encoder from transformers, by local path or hub id: the text side of Stable Audio Open."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch

from sonarc.contracts.errors import ConfigError
from sonarc.text.encoder import REMEMBERED, StatesCache, TextStates, check_prompts


class T5:
    """A `TextEncoder`: last hidden states × attention mask, in float32.

    Args:
        path: local folder or hub id with the encoder's safetensors weights and its tokenizer.
        max_tokens: length of every encoded prompt.
        remembered: prompts whose states are kept.
        device: where it computes.

    Raises:
        ConfigError: nothing loadable there.
    """

    name = "t5"

    def __init__(
        self,
        path: str,
        *,
        max_tokens: int = 64,
        remembered: int = REMEMBERED,
        device: torch.device | str = "cpu",
    ) -> None:
        from transformers import AutoTokenizer, T5EncoderModel  # takes seconds, and only this encoder needs it

        try:
            tokenizer: Any = AutoTokenizer.from_pretrained(path)
            model: Any = T5EncoderModel.from_pretrained(path, use_safetensors=True, dtype=torch.float32)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"No T5 encoder could be loaded from {path!r}: {error}",
                "Set text.path to a folder or hub id with config.json, model.safetensors and a tokenizer.",
            ) from error
        self._tokenizer, self._device = tokenizer, torch.device(device)
        self.max_tokens = max_tokens
        self.width = int(model.config.d_model)
        self.sha256 = weights_sha256(model)
        self._model = model.eval().requires_grad_(False).to(self._device)
        self._cache = StatesCache(max_tokens, self.width, limit=remembered)

    def __call__(self, prompts: Sequence[str]) -> TextStates:
        """Token states of some prompts, float32 on the CPU, zero at padding."""
        check_prompts(prompts)
        self._cache.shrink()
        if missing := self._cache.missing(prompts):
            self._cache.add(missing, self._encode(missing))
        return self._cache.states(prompts)

    @torch.inference_mode()
    def _encode(self, prompts: Sequence[str]) -> TextStates:
        encoded = self._tokenizer(
            list(prompts), truncation=True, max_length=self.max_tokens, padding="longest", return_tensors="pt"
        )
        inputs = {name: encoded[name].to(self._device) for name in ("input_ids", "attention_mask")}
        states_BLE = self._model(**inputs).last_hidden_state.cpu()
        mask_BL = encoded["attention_mask"].bool()
        return TextStates(states_BLE * mask_BL[..., None], mask_BL)


def weights_sha256(model: torch.nn.Module) -> str:
    """Hash of a network's weights by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
