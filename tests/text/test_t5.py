"""A T5 encoder by local path, at a toy size with random weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sonarc.contracts.config import TextConfig
from sonarc.contracts.errors import ConfigError
from sonarc.text import load_text_encoder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

    place = tmp_path_factory.mktemp("t5")
    words = {word: n for n, word in enumerate(["<pad>", "</s>", "<unk>", "a", "fiddle", "bell"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(place)
    torch.manual_seed(0)
    shape = T5Config(vocab_size=len(words), d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    T5EncoderModel(shape).save_pretrained(place)
    return place


def test_states_are_padded_with_zeros_and_do_not_depend_on_company(folder: Path) -> None:
    encoder = load_text_encoder(TextConfig(kind="t5", path=str(folder), max_tokens=8, width=16))
    together = encoder(["a bell", "a fiddle a fiddle bell"])
    assert together.tokens_BLE.shape == (2, 8, 16)
    assert together.mask_BL.sum(1).tolist() == [2, 5]
    assert together.tokens_BLE[~together.mask_BL].abs().max() == 0
    alone = load_text_encoder(TextConfig(kind="t5", path=str(folder), max_tokens=8, width=16))(["a bell"])
    assert torch.allclose(alone.tokens_BLE[0], together.tokens_BLE[0], atol=1e-5)


def test_a_wrong_width_or_path_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="16 wide"):
        load_text_encoder(TextConfig(kind="t5", path=str(folder), width=32))
    with pytest.raises(ConfigError, match="nowhere"):
        load_text_encoder(TextConfig(kind="t5", path=str(tmp_path / "nowhere"), width=16))
    with pytest.raises(ConfigError, match="empty"):
        load_text_encoder(TextConfig(kind="t5", width=16))
