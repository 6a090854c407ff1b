"""Variations of a sound, and sounds that keep a part of it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from tiny_package import make_package
from typer.testing import CliRunner

from pipelines.cli import app
from sonarc.contracts.errors import ModelInputError
from sonarc.runtime.edit import Edit
from sonarc.runtime.generator import Generator
from sonarc.runtime.sound import read_sound

RATE = 44_100
TIME = np.arange(RATE // 2) / RATE
TONE_AS = (0.4 * np.sin(2 * np.pi * 440 * np.stack([TIME, TIME]))).astype(np.float32)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_package(tmp_path_factory.mktemp("package"))[0]


@pytest.fixture(scope="module")
def generator(package: str) -> Generator:
    return Generator.load(package)


def made(generator: Generator, edit: Edit | None) -> np.ndarray:
    return generator.generate(["a bell"], [0.5], [3], edit=edit)[0]


def test_little_noise_stays_near_the_sound_as_the_codec_hears_it(generator: Generator) -> None:
    codec = generator.networks("float32").codec
    frames = codec.frames(TONE_AS.shape[1])
    given_BCT = codec.encode(torch.from_numpy(TONE_AS)[None])

    def distance(noise: float) -> float:
        start, known = Edit(TONE_AS, noise).prepare(codec, torch.ones(1, frames, dtype=torch.bool))
        assert start is not None and known is None
        return float((start.at(torch.randn(given_BCT.shape)) - given_BCT).norm())

    assert distance(0.05) < 0.2 * distance(0.9)
    assert not np.array_equal(made(generator, Edit(TONE_AS, 0.3)), made(generator, None))


def test_what_is_kept_decides_the_latents_there_and_nothing_else_is_given(generator: Generator) -> None:
    codec = generator.networks("float32").codec
    _, known = Edit(TONE_AS, keep=(0.1, 0.3)).prepare(codec, torch.ones(2, 20, dtype=torch.bool))
    assert known is not None
    centres = (np.arange(20) + 0.5) * codec.hop / RATE
    assert known.keep_BT.tolist() == 2 * [((centres >= 0.1) & (centres < 0.3)).tolist()]
    whole = Edit(TONE_AS, keep=(0.0, math.inf)).prepare(codec, torch.ones(1, 20, dtype=torch.bool))[1]
    assert whole is not None and bool(whole.keep_BT.all())


def test_a_sound_kept_whole_comes_back_as_the_codec_gives_it(generator: Generator) -> None:
    clip_AS = made(generator, Edit(TONE_AS, keep=(0.0, math.inf)))
    other_AS = generator.generate(["a drum"], [0.5], [99], edit=Edit(TONE_AS, keep=(0.0, math.inf)))[0]
    np.testing.assert_allclose(clip_AS, other_AS, atol=0.02)  # whatever the prompt and the seed


@pytest.mark.parametrize(
    ("audio", "noise", "keep", "told"),
    [
        (TONE_AS, 1.0, None, "no say"),
        (TONE_AS[:, :0], 0.5, None, r"\(2, 0\)"),
        (np.full((2, 9), np.nan, np.float32), 0.5, None, "not finite"),
        (TONE_AS, 1.0, (0.5, 0.5), "0.5 to 0.5"),
        (TONE_AS, 1.0, (-1.0, 0.5), "-1.0 to 0.5"),
        (TONE_AS, 1.0, (math.nan, 0.5), "nan to 0.5"),
    ],
)
def test_what_makes_no_sense_is_refused(
    audio: np.ndarray, noise: float, keep: tuple[float, float] | None, told: str
) -> None:
    with pytest.raises(ModelInputError, match=told):
        Edit(audio, noise, keep)


def test_files_come_in_as_stereo_at_the_models_rate(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "mono.wav", TONE_AS[0, :4_000], 22_050)
    sound_AS = read_sound(tmp_path / "mono.wav", RATE)
    assert sound_AS.shape == (2, 8_000)
    assert np.array_equal(sound_AS[0], sound_AS[1])
    (tmp_path / "text.wav").write_text("no audio at all")
    for name in ("text.wav", "missing.wav"):
        with pytest.raises(ModelInputError, match=name):
            read_sound(tmp_path / name, RATE)


def test_the_command_edits_a_file_and_says_what_is_wrong_with_it(tmp_path: Path, package: str) -> None:
    soundfile.write(tmp_path / "tone.wav", TONE_AS.T, RATE)
    common = ["generate", "a bell", "--package", package, "--seconds", "0.5", "--output", str(tmp_path / "out.wav")]
    like = ["--like", str(tmp_path / "tone.wav")]
    done = CliRunner().invoke(app, [*common, *like, "--keep", "0:0.2", "--noise", "0.8"])
    assert done.exit_code == 0, done.output
    assert soundfile.info(tmp_path / "out.wav").frames == RATE // 2
    for wrong, told in (
        (["--noise", "0.5"], "--like FILE"),
        ([*like, "--keep", "soon"], "'soon'"),
        ([*like, "--noise", "2"], "2.0"),
        (like, "no say"),
    ):
        refused = CliRunner().invoke(app, [*common, *wrong])
        assert refused.exit_code != 0
        assert told in refused.output
