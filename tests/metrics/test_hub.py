"""Embedders by path: transformers' CLAP and audio classifiers, and ONNX files, at toy sizes with random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from sonarc.contracts.config import EvaluateConfig, space_of
from sonarc.contracts.errors import ConfigError
from sonarc.metrics.embedders import load_audio_text, load_embedder
from sonarc.metrics.embedders.interface import Tagger

RATE = 44_100


def _clips(count: int = 3, seconds: float = 0.4) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, 2, int(seconds * RATE))).astype(np.float32) * 0.1


@pytest.fixture(scope="module")
def clap(tmp_path_factory: pytest.TempPathFactory) -> str:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel, ClapProcessor, PreTrainedTokenizerFast

    place = tmp_path_factory.mktemp("hub") / "tiny-clap"
    words = {word: n for n, word in enumerate(["<s>", "<pad>", "</s>", "<unk>", "<mask>", "a", "fiddle", "bell"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>")
    audio = {
        "hidden_size": 64, "patch_embeds_hidden_size": 8, "depths": [1, 1, 1, 1], "num_attention_heads": [1, 1, 2, 2],
        "spec_size": 64, "num_mel_bins": 64, "window_size": 2, "projection_dim": 16, "patch_size": 4,
        "patch_stride": [4, 4],
    }  # fmt: skip
    text = {
        "vocab_size": len(words), "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 32, "projection_dim": 16, "max_position_embeddings": 40,
    }  # fmt: skip
    torch.manual_seed(0)
    ClapModel(ClapConfig(audio_config=audio, text_config=text, projection_dim=16)).save_pretrained(place)
    extractor = ClapFeatureExtractor(feature_size=64, max_length_s=1, hop_length=960, truncation="rand_trunc")
    ClapProcessor(extractor, fast).save_pretrained(place)
    return f"hub:{place}"


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory) -> str:
    from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification

    place = tmp_path_factory.mktemp("hub") / "tiny-ast"
    shape = ASTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, max_length=64,
        num_mel_bins=32, num_labels=5,
    )  # fmt: skip
    torch.manual_seed(0)
    ASTForAudioClassification(shape).save_pretrained(place)
    ASTFeatureExtractor(max_length=64, num_mel_bins=32).save_pretrained(place)
    return f"hub:{place}"


def _onnx(path: Path, shape: list[int | str], rate: str = "16000") -> str:
    """A network that gives the mean and the mean square of each clip over all but the batch axis."""
    kind = onnx.TensorProto.FLOAT
    axes = onnx.helper.make_tensor("axes", onnx.TensorProto.INT64, [len(shape) - 1], list(range(1, len(shape))))
    nodes = [
        onnx.helper.make_node("Mul", ["x", "x"], ["square"]),
        onnx.helper.make_node("ReduceMean", ["x", "axes"], ["m"], keepdims=0),
        onnx.helper.make_node("ReduceMean", ["square", "axes"], ["s"], keepdims=0),
        onnx.helper.make_node("Unsqueeze", ["m", "one"], ["m1"]),
        onnx.helper.make_node("Unsqueeze", ["s", "one"], ["s1"]),
        onnx.helper.make_node("Concat", ["m1", "s1"], ["y"], axis=1),
    ]
    one = onnx.helper.make_tensor("one", onnx.TensorProto.INT64, [1], [1])
    graph = onnx.helper.make_graph(
        nodes,
        "toy",
        [onnx.helper.make_tensor_value_info("x", kind, shape)],
        [onnx.helper.make_tensor_value_info("y", kind, ["batch", 2])],
        initializer=[axes, one],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    if rate:
        onnx.helper.set_model_props(model, {"sample_rate": rate})
    onnx.save(model, path)
    return f"onnx:{path}"


def test_a_clap_embeds_audio_and_prompts_in_one_space(clap: str) -> None:
    model = load_audio_text(clap)
    clips = _clips()
    x, y = model(clips), model.text(["a fiddle", "a bell", "a"])
    assert x.shape == y.shape == (3, 16) and model.name == "tiny_clap"
    for vectors in (x, y):
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(model(clips[1:2]), x[1:2], atol=1e-5)
    assert load_embedder(clap).sha256 == model.sha256 != ""


def test_long_clips_are_heard_whole_and_alike_every_time(clap: str) -> None:
    model = load_embedder(clap)
    clip = _clips(1, seconds=2.8)
    first = model(clip)
    np.testing.assert_array_equal(first, model(clip))
    changed = clip.copy()
    changed[..., -RATE // 2 :] = _clips(1, seconds=0.5)[..., : RATE // 2] * 5
    assert np.abs(model(changed) - first).max() > 1e-4, "its end was not heard"


def test_a_classifier_gives_vectors_and_posteriors(tagger: str) -> None:
    model = load_embedder(tagger)
    assert isinstance(model, Tagger)
    tags = model.tag(_clips())
    assert tags.embeddings_BE.shape == (3, 16) and tags.posteriors_BK.shape == (3, 5)
    assert ((tags.posteriors_BK >= 0) & (tags.posteriors_BK <= 1)).all()
    np.testing.assert_array_equal(model(_clips()), tags.embeddings_BE)
    with pytest.raises(ConfigError, match="reads no text"):
        load_audio_text(tagger)


@pytest.mark.parametrize("shape", [["batch", "samples"], ["batch", 2, "samples"]])
def test_an_onnx_file_embeds_what_it_computes(tmp_path: Path, shape: list[int | str]) -> None:
    model = load_embedder(_onnx(tmp_path / "Open L3.onnx", shape))
    t = np.arange(RATE) / RATE
    wave = np.sin(2 * np.pi * 1_000 * t)
    clips = np.stack([np.stack([wave, wave]), np.stack([wave, wave]) * 0.5]).astype(np.float32)
    assert model.name == "open_l3" and model.width == 2
    np.testing.assert_allclose(model(clips), [[0, 0.5], [0, 0.125]], atol=2e-3)


def test_what_is_no_embedder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="There is no file"):
        load_embedder(f"onnx:{tmp_path / 'missing.onnx'}")
    with pytest.raises(ConfigError, match="sample_rate ''"):
        load_embedder(_onnx(tmp_path / "rateless.onnx", ["batch", "samples"], rate=""))
    (tmp_path / "text.onnx").write_text("no network")
    with pytest.raises(ConfigError, match="is no network"):
        load_embedder(f"onnx:{tmp_path / 'text.onnx'}")
    with pytest.raises(ConfigError, match="No audio model"):
        load_embedder(f"hub:{tmp_path / 'nowhere'}")
    with pytest.raises(ConfigError, match="There is no embedder 'vggish'"):
        load_embedder("vggish")


def test_spaces_have_short_names_of_their_own() -> None:
    assert space_of("hub:laion/clap-htsat-unfused") == "clap_htsat_unfused"
    assert space_of("onnx:models/OpenL3.onnx") == "openl3" and space_of("yamnet") == "yamnet"
    with pytest.raises(ValueError, match="names of their own"):
        EvaluateConfig(embedders=("hub:a/x", "onnx:b/x.onnx"))
    with pytest.raises(ValueError, match="pattern"):
        EvaluateConfig(embedders=("vggish",))
