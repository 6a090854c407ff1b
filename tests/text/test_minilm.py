"""MiniLM: equal to transformers' BertModel, padding is zero, prompts are cut and remembered."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sonarc.contracts.config import TextConfig
from sonarc.contracts.errors import CheckpointError, ConfigError, ModelInputError
from sonarc.contracts.hashing import sha256_path
from sonarc.text import TextEncoder, load_text_encoder
from sonarc.text.minilm import MiniLM, installed_folder

PROMPTS = ["a slow fiddle tune in D major", "kick drum", "Glass breaking — très fort, 120 bpm"]


@pytest.fixture(scope="module")
def encoder() -> MiniLM:
    return MiniLM(max_tokens=16)


def test_states_equal_those_of_transformers(encoder: MiniLM) -> None:
    from transformers import BertModel, BertTokenizerFast

    reference = BertModel.from_pretrained(str(installed_folder()), attn_implementation="eager").eval()
    tokenizer = BertTokenizerFast.from_pretrained(str(installed_folder()))
    tokens = tokenizer(PROMPTS, padding="max_length", max_length=16, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        expected_BLE = reference(**tokens).last_hidden_state
    states = encoder(PROMPTS)
    assert torch.equal(states.mask_BL, tokens["attention_mask"].bool())
    assert (states.tokens_BLE - expected_BLE)[states.mask_BL].abs().max() < 1e-5
    assert states.tokens_BLE[~states.mask_BL].abs().max() == 0


def test_a_prompt_reads_the_same_alone_and_in_company(encoder: MiniLM) -> None:
    alone = MiniLM(max_tokens=16)(PROMPTS[1:2])
    together = encoder(PROMPTS)
    assert torch.allclose(alone.tokens_BLE[0], together.tokens_BLE[1], atol=1e-5)


def test_bfloat16_moves_the_states_by_about_a_hundredth(encoder: MiniLM) -> None:
    quick = MiniLM(max_tokens=16, bfloat16=True)(PROMPTS).tokens_BLE
    exact = encoder(PROMPTS).tokens_BLE
    assert 1e-4 < (quick - exact).norm() / exact.norm() < 0.02


def test_long_prompts_are_cut_to_max_tokens(encoder: MiniLM) -> None:
    states = encoder(["bell " * 100])
    assert states.tokens_BLE.shape == (1, 16, 384)
    assert states.mask_BL.all()


def test_repeated_prompts_are_encoded_once(encoder: MiniLM, monkeypatch: pytest.MonkeyPatch) -> None:
    first = encoder(["a remembered prompt"])
    monkeypatch.setattr(encoder, "_encode", lambda prompts: pytest.fail(f"encoded {prompts} again"))
    again = encoder(["a remembered prompt", "a remembered prompt"])
    assert torch.equal(again.tokens_BLE[1], first.tokens_BLE[0])


def test_the_null_text_is_all_zeros(encoder: MiniLM) -> None:
    states = encoder(PROMPTS)
    null = states.null()
    assert null.tokens_BLE.abs().max() == 0
    assert not null.mask_BL.any()
    dropped = states.dropped(torch.tensor([True, False, False]))
    assert torch.equal(dropped.tokens_BLE[0], null.tokens_BLE[0])
    assert torch.equal(dropped.tokens_BLE[1:], states.tokens_BLE[1:])
    assert dropped.pooled()[0].abs().max() == 0


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=40), min_size=1, max_size=3))
@settings(max_examples=15)
def test_any_text_gives_finite_states(encoder: MiniLM, prompts: list[str]) -> None:
    states = encoder(prompts)
    assert states.tokens_BLE.shape == (len(prompts), 16, 384)
    assert torch.isfinite(states.tokens_BLE).all()


@pytest.mark.parametrize("prompts", [[], "no list", [3], ["lone \ud800 surrogate"]])
def test_what_is_no_text_is_refused(encoder: MiniLM, prompts: list[str]) -> None:
    with pytest.raises(ModelInputError):
        encoder(prompts)


def test_damaged_or_foreign_weights_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    (tmp_path / "tokenizer.json").write_bytes((installed_folder() / "tokenizer.json").read_bytes())
    with pytest.raises(ConfigError, match=r"model\.safetensors"):
        MiniLM(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\x10")
    with pytest.raises(CheckpointError, match="safetensors"):
        MiniLM(tmp_path)
    save_file({"weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="MiniLM"):
        MiniLM(tmp_path)


def test_the_configured_encoder_is_loaded() -> None:
    encoder = load_text_encoder(TextConfig(max_tokens=8))
    assert isinstance(encoder, TextEncoder)
    assert (encoder.name, encoder.width, encoder.max_tokens) == ("minilm", 384, 8)
    assert encoder.sha256 == sha256_path(installed_folder() / "model.safetensors")
