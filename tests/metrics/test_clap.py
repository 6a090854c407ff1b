"""The CLAP learns which caption belongs to which sound; its loss spares clips of one concept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from sounds import noise, tone

from sonarc.contracts.dataset import Split
from sonarc.contracts.errors import CheckpointError, ConfigError, DataError
from sonarc.metrics.clap_training import (
    CaptionedClip,
    ClapReport,
    ClapTraining,
    augment,
    contrastive_loss,
    train_clap,
)
from sonarc.metrics.embedders.clap import Clap, ClapConfig, LogMel, load_clap

SOUNDS = {
    "a low hum": lambda seed: tone(0.7, hz=110 + seed),
    "a high whistle": lambda seed: tone(0.7, hz=3_000 + 20 * seed),
    "white noise": lambda seed: noise(0.7, seed=seed),
    "a short click": lambda seed: noise(0.02, seed=seed),
}
SMALL = ClapConfig(mels=32, widths=(16, 32), width=32, text_hidden=64)


def padded(clip: np.ndarray) -> np.ndarray:
    audio = np.zeros((2, 32_768), np.float32)
    audio[:, : clip.shape[1]] = clip
    return audio


def clips(split: Split) -> Iterator[CaptionedClip]:
    for seed in range(8) if split == "train" else range(8, 11):
        for name, make in SOUNDS.items():
            yield CaptionedClip(padded(make(seed)), [name, f"the sound of {name}"], name, "CC0-1.0")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ClapReport]:
    folder = tmp_path_factory.mktemp("clap")
    training = ClapTraining(epochs=24, batch=16, mask_bands=2, mask_frames=2, shift_frames=2)
    return folder, train_clap(clips, folder.as_uri(), training=training, config=SMALL)


def test_a_trained_clap_matches_and_permuted_pairs_fall_to_chance(trained: tuple[Path, ClapReport]) -> None:
    clap = load_clap(str(trained[0]))
    test = list(clips("test"))
    audio = np.stack([clip.audio_AS for clip in test])
    prompts = [clip.captions[1] for clip in test]
    matched = (clap(audio) * clap.text(prompts)).sum(axis=1)
    permuted = (clap(audio) * clap.text(prompts[1:] + prompts[:1])).sum(axis=1)
    assert matched.mean() > permuted.mean() + 0.4
    assert trained[1].figures["forced_choice"] > 0.9 > 0.6 > trained[1].figures["concept_chance"]
    np.testing.assert_allclose(np.linalg.norm(clap(audio), axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(clap(audio[:1]), clap(audio)[:1], atol=1e-5)


def test_training_again_gives_the_same_clap(trained: tuple[Path, ClapReport], tmp_path: Path) -> None:
    training = ClapTraining(epochs=1, batch=16)
    hashes = {train_clap(clips, str(tmp_path / name), training=training, config=SMALL).sha256 for name in "ab"}
    assert len(hashes) == 1 and trained[1].sha256 not in hashes


def test_the_card_says_how_it_was_made(trained: tuple[Path, ClapReport]) -> None:
    card = (trained[0] / "card.md").read_text()
    facts = ("CC0-1.0", trained[1].sha256, "sonarc train clap", "32 clips of the train split", "12 clips of the test")
    assert all(fact in card for fact in facts)


def test_another_text_encoder_or_damaged_weights_are_refused(trained: tuple[Path, ClapReport], tmp_path: Path) -> None:
    config = json.loads((trained[0] / "config.json").read_text())
    weights = (trained[0] / "model.safetensors").read_bytes()
    for change, data, error in (
        ({"text_encoder_sha256": "0" * 64}, weights, ConfigError),
        ({"width": 48}, weights, CheckpointError),
        ({"unknown": 1}, weights, CheckpointError),
        ({}, weights[:100], CheckpointError),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config | change))
        (tmp_path / "model.safetensors").write_bytes(data)
        with pytest.raises(error):
            load_clap(str(tmp_path))
    with pytest.raises(ConfigError, match="no-such-clap"):
        load_clap("no-such-clap")


def test_too_few_clips_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="32 train"):
        train_clap(clips, str(tmp_path), training=ClapTraining(batch=64), config=SMALL)
    assert not list(tmp_path.iterdir())


def test_pairs_of_one_concept_are_no_negatives() -> None:
    vectors = torch.nn.functional.normalize(torch.randn(4, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    scale = torch.tensor(10.0)
    doubled, concepts = vectors.repeat(2, 1), torch.arange(4).repeat(2)
    spared = contrastive_loss(doubled, doubled, concepts, scale)
    alone = contrastive_loss(vectors, vectors, torch.arange(4), scale)
    blamed = contrastive_loss(doubled, doubled, torch.arange(8), scale)
    # A copy of one's own concept adds nothing but its likeness to the others.
    assert alone < spared < blamed


def test_the_level_of_a_clip_does_not_count_and_silence_is_even() -> None:
    log_mel = LogMel(SMALL)
    audio = torch.from_numpy(padded(tone()))[None]
    torch.testing.assert_close(log_mel(audio), log_mel(0.1 * audio), atol=1e-3, rtol=0)
    assert (log_mel(torch.zeros(1, 2, 32_768)) == -1).all()


def test_augmentation_keeps_shape_and_range() -> None:
    mels = LogMel(SMALL)(torch.from_numpy(padded(noise()))[None].repeat(3, 1, 1))
    out = augment(mels, ClapTraining(), np.random.default_rng(0))
    assert out.shape == mels.shape
    assert out.min() >= -1 and out.max() <= 1
    assert not torch.equal(out[0], out[1])


def test_the_shipped_clap_is_small_and_tells_instruments_apart() -> None:
    clap = load_clap("clap-v1")
    assert isinstance(clap, Clap)
    text = clap.text(["a violin plays a fast reel", "a fast reel played on a violin", "a single bass drum hit"])
    assert text[0] @ text[1] > text[0] @ text[2] + 0.3
