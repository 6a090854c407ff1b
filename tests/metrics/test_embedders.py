"""Every embedder is deterministic, blind to the rest of its batch, and tells sounds apart."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from sounds import noise, tone

from sonarc.contracts.errors import ConfigError, DataError
from sonarc.metrics.embedders import Embedder, embed, load_embedder
from sonarc.metrics.embedders.interface import package_file
from sonarc.metrics.embedders.yamnet import YamNet

SAMPLES = 65_536


def padded(*clips: np.ndarray) -> np.ndarray:
    audio = np.zeros((len(clips), 2, SAMPLES), np.float32)
    for row, clip in zip(audio, clips, strict=True):
        row[:, : clip.shape[1]] = clip[:, :SAMPLES]
    return audio


@pytest.fixture(scope="module", params=["yamnet", "aisfx"])
def embedder(request: pytest.FixtureRequest) -> Embedder:
    return load_embedder(request.param)


def test_vectors_are_deterministic_and_independent_of_the_batch(embedder: Embedder) -> None:
    audio = padded(noise(1.4), tone(0.3), np.zeros((2, 10)))
    together = embedder(audio)
    assert together.shape == (3, embedder.width) and together.dtype == np.float32
    np.testing.assert_array_equal(together, embedder(audio))
    np.testing.assert_allclose(embed(embedder, audio, batch=1), together, rtol=1e-3, atol=1e-3)


def test_sounds_differ_more_than_takes_of_one_sound(embedder: Embedder) -> None:
    a, b, c, silence = embedder(padded(noise(1.4, seed=1), noise(1.4, seed=2), tone(1.4), np.zeros((2, 10))))
    assert np.isfinite(silence).all()
    takes = np.linalg.norm(a - b)
    assert np.linalg.norm(a - c) > 2 * takes
    assert np.linalg.norm(a - silence) > 2 * takes


def test_the_hash_names_weights_and_recipe(embedder: Embedder) -> None:
    again = load_embedder(embedder.name)
    assert again.sha256 == embedder.sha256 and len(embedder.sha256) == 64


@pytest.mark.parametrize("bad", [np.zeros((2, 100), np.float32), np.full((1, 2, 100), np.nan, np.float32)])
def test_audio_of_another_shape_or_with_nan_is_refused(embedder: Embedder, bad: np.ndarray) -> None:
    with pytest.raises(DataError):
        embedder(bad)


def test_yamnet_names_what_it_hears() -> None:
    with package_file("sead", "data", "yamnet_class_map.csv").open() as file:
        names = [row["display_name"] for row in csv.DictReader(file)]
    posteriors = YamNet().tag(padded(noise(1.4), np.zeros((2, 10)))).posteriors_BK
    assert names[posteriors[0].argmax()] in ("White noise", "Static", "Noise", "Pink noise")
    assert names[posteriors[1].argmax()] == "Silence"


def test_padding_leaves_a_yamnet_vector_alone() -> None:
    clip = noise(0.4)
    short = np.zeros((1, 2, 44_100), np.float32)
    short[0, :, : clip.shape[1]] = clip
    np.testing.assert_allclose(YamNet()(short), YamNet()(padded(clip)), rtol=1e-5, atol=1e-5)


def test_the_converted_network_is_kept_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SONARC_CACHE", str(tmp_path))
    first = YamNet()(padded(tone()))
    files = list(tmp_path.rglob("*"))
    assert [file.suffix for file in files if file.is_file()] == [".onnx"]
    stamp = [file.stat().st_mtime_ns for file in files if file.is_file()]
    np.testing.assert_array_equal(YamNet()(padded(tone())), first)
    assert [file.stat().st_mtime_ns for file in tmp_path.rglob("*.onnx")] == stamp


def test_unknown_names_and_missing_packages_say_what_to_do() -> None:
    with pytest.raises(ConfigError, match="vggish"):
        load_embedder("vggish")
    with pytest.raises(ConfigError, match="not installed"):
        package_file("no_such_package", "weights.bin")
