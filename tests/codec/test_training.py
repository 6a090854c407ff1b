"""Training learns, resumes exactly and refuses what it cannot use."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from sonarc.codec.config import CodecTrainConfig
from sonarc.codec.package import load_codec, save_codec
from sonarc.codec.training import Sources, StepReport, draw_batch, train_codec
from sonarc.contracts.errors import CheckpointError, DataError
from tests.codec.test_spectral import TINY

CONFIG = CodecTrainConfig(
    model=TINY, steps=6, seconds=None, batch=2, crop=4096, warmup_steps=2, lr=5e-3, save_every=1e9
)

ONE_SOURCE = Sources.of(["tones"] * 4)


def tones(count: int = 4) -> NDArray[np.int16]:
    t = np.arange(8192) / 44_100
    pitches = 220 * (1 + np.arange(count))
    waves = [np.stack([np.sin(2 * np.pi * f * t), np.sin(2 * np.pi * 1.5 * f * t)]) for f in pitches]
    return (np.stack(waves) * 8000).astype(np.int16)


class Stopped(Exception):
    """Stands for whatever ends a process in the middle."""


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    straight: dict[int, float] = {}
    resumed: dict[int, float] = {}

    def note(losses: dict[int, float]) -> StepReport:
        return lambda step, done, terms: losses.update({step: terms["loss"]})

    whole = train_codec(tones(), CONFIG, tmp_path / "a", note(straight))

    def stop_after_four(step: int, done: float, terms: dict[str, float]) -> None:
        resumed[step] = terms["loss"]
        if step == 4:
            raise Stopped

    every_step = CONFIG.model_copy(update={"save_every": 1e-9})
    with pytest.raises(Stopped):
        train_codec(tones(), every_step, tmp_path / "b", stop_after_four)
    again = train_codec(tones(), every_step, tmp_path / "b", note(resumed))

    assert resumed == straight and sorted(straight) == [1, 2, 3, 4, 5, 6]
    assert again.steps == whole.steps == 6
    for name, tensor in whole.codec.state_dict().items():
        assert torch.equal(tensor, again.codec.state_dict()[name]), name
    assert {path.suffix for path in (tmp_path / "b").iterdir()} == {".safetensors", ".json"}
    assert len(list((tmp_path / "b").iterdir())) == 2


def test_the_loss_falls_and_latents_come_out_standardised(tmp_path: Path) -> None:
    losses: list[float] = []
    config = CONFIG.model_copy(update={"steps": 40})
    codec = train_codec(tones(), config, tmp_path, lambda step, done, terms: losses.append(terms["loss"])).codec
    assert np.mean(losses[-10:]) < 0.95 * np.mean(losses[:10])
    z_BCT = codec.encode(torch.from_numpy(tones() / 32768.0))
    torch.testing.assert_close(z_BCT.mean(dim=(0, 2)), torch.zeros(4), atol=1e-3, rtol=0)
    torch.testing.assert_close(z_BCT.std(dim=(0, 2)), torch.ones(4), atol=1e-2, rtol=0)


def test_a_run_ends_when_its_time_is_over(tmp_path: Path) -> None:
    parts: list[float] = []
    config = CONFIG.model_copy(update={"steps": None, "seconds": 0.3})
    taken = train_codec(tones(), config, tmp_path, lambda step, done, terms: parts.append(done))
    assert taken.seconds >= 0.3 and parts[-1] == 1.0 and parts == sorted(parts)


def test_a_folder_of_other_settings_is_refused(tmp_path: Path) -> None:
    train_codec(tones(), CONFIG, tmp_path)
    with pytest.raises(CheckpointError, match="other settings"):
        train_codec(tones(), CONFIG.model_copy(update={"lr": 1e-4}), tmp_path)


@pytest.mark.parametrize("shape", [(3, 8192), (3, 1, 8192), (0, 2, 8192), (3, 2, 4000)])
def test_clips_that_cannot_be_used_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="clips of shape"):
        train_codec(np.zeros(shape, dtype=np.int16), CONFIG, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_loss_that_is_not_a_number_stops_the_run(tmp_path: Path) -> None:
    clips = np.full((2, 2, 8192), math.nan, dtype=np.float32)
    with pytest.raises(CheckpointError, match="nan"):
        train_codec(clips, CONFIG, tmp_path)


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    first = draw_batch(tones(), ONE_SOURCE, CONFIG, 3)
    assert torch.equal(first, draw_batch(tones(), ONE_SOURCE, CONFIG, 3))
    assert not torch.equal(first, draw_batch(tones(), ONE_SOURCE, CONFIG, 4))
    assert first.shape == (2, 2, 4096) and first.abs().max() <= 1.0


def test_a_small_source_is_drawn_as_often_as_a_large_one() -> None:
    sources = Sources.of(["many"] * 95 + ["few"] * 5)
    rng = np.random.default_rng(0)
    evenly = np.mean([sources.draw(1.0, rng) >= 95 for _ in range(2_000)])
    by_clip = np.mean([sources.draw(0.0, rng) >= 95 for _ in range(2_000)])
    assert 0.46 < evenly < 0.54 and 0.03 < by_clip < 0.07


def test_training_goes_on_from_a_codec(tmp_path: Path) -> None:
    first = train_codec(tones(), CONFIG, tmp_path / "first")
    save_codec(first.codec, str(tmp_path / "codec"), "card")
    config = CONFIG.model_copy(update={"start": str(tmp_path / "codec"), "steps": 1, "lr": 1e-9})
    again = train_codec(tones(), config, tmp_path / "again")
    audio = torch.from_numpy(tones() / 32768.0)
    torch.testing.assert_close(
        again.codec.decode(again.codec.encode(audio)), first.codec.decode(first.codec.encode(audio)), atol=0.02, rtol=0
    )


def test_a_codec_of_another_shape_is_no_start(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"start": "codec-v3"})
    with pytest.raises(CheckpointError, match="another shape"):
        train_codec(tones(), config, tmp_path)


def test_a_decoder_alone_learns_and_latents_stay_what_they_are(tmp_path: Path) -> None:
    first = train_codec(tones(), CONFIG, tmp_path / "a").codec
    start = (tmp_path / "codec").as_uri()
    save_codec(first, start)
    config = CONFIG.model_copy(update={"start": start, "learns": "decoder"})

    better = train_codec(tones(), config, tmp_path / "b").codec

    stored = load_codec(start)
    assert better.encoder_sha256 == stored.encoder_sha256
    assert better.sha256 != stored.sha256
    audio = torch.from_numpy(tones()).float() / 32_768
    assert torch.equal(better.encode(audio), stored.encode(audio))


def test_a_decoder_alone_needs_a_start() -> None:
    with pytest.raises(ValidationError, match="names no codec whose encoder is kept"):
        CodecTrainConfig(learns="decoder")
