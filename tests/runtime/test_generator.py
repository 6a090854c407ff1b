"""A package loads only when it is whole, and a seed gives the same audio whatever else is asked for."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from tiny_package import SAMPLES, make_models, make_package

from sonarc.codec.config import SpectralCodecConfig
from sonarc.codec.package import save_codec
from sonarc.codec.spectral import SpectralCodec
from sonarc.contracts.errors import CheckpointError, ModelInputError
from sonarc.contracts.hashing import sha256_path
from sonarc.contracts.package import PackageManifest
from sonarc.runtime.generate import CEILING
from sonarc.runtime.generator import Generator


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, PackageManifest]:
    return make_package(tmp_path_factory.mktemp("package"))


@pytest.fixture(scope="module")
def generator(package: tuple[str, PackageManifest]) -> Generator:
    return Generator.load(package[0], sha256=package[1].sha256())


@pytest.fixture
def copy(package: tuple[str, PackageManifest], tmp_path: Path) -> Path:
    """A copy of the package, to be tampered with."""
    return Path(shutil.copytree(package[0].removeprefix("file://"), tmp_path / "copy"))


def rename_in_manifest(copy: Path, name: str) -> None:
    """Give a changed file its true hash in the manifest: only what is in it can now betray it."""
    manifest = json.loads((copy / "package.json").read_text())
    manifest["files"][name] = sha256_path(copy / name)
    (copy / "package.json").write_text(json.dumps(manifest))


def noise_db(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(np.sum((a - b) ** 2) / np.sum(a**2) + 1e-20))


def test_clip_has_the_asked_length_and_is_sound(generator: Generator) -> None:
    (clip,) = generator.generate(["a kick drum"], [0.5], [3])
    assert clip.shape == (2, round(0.5 * 44_100))
    assert clip.dtype == np.float32 and np.isfinite(clip).all() and np.abs(clip).max() > 0.01


def test_seed_gives_the_same_clip_alone_and_in_any_batch(generator: Generator) -> None:
    (alone,) = generator.generate(["a kick drum"], [0.5], [3])
    (again,) = generator.generate(["a kick drum"], [0.5], [3])
    longest = generator.max_seconds
    together = generator.generate(["a flute", "a kick drum", "bells"], [longest, 0.5, 0.11], [9, 3, 0])
    assert np.array_equal(alone, again)
    assert noise_db(alone, together[1]) < -40
    assert [clip.shape[1] for clip in together] == [SAMPLES, 22_050, 4_851]


def test_what_a_prompt_was_first_read_with_does_not_matter(package: tuple[str, PackageManifest]) -> None:
    one, two = (Generator.load(package[0]) for _ in range(2))
    one.generate(["a rather long prompt about bells in the distance", "a kick drum"], [0.5, 0.5], [1, 2])
    (after,), (fresh,) = (generator.generate(["a kick drum"], [0.5], [3]) for generator in (one, two))
    assert np.array_equal(after, fresh)


def test_prompt_and_seed_both_matter(generator: Generator) -> None:
    one, same, other_seed, other_prompt = generator.generate(["a kick drum"] * 3 + ["a flute"], [0.5] * 4, [3, 3, 4, 3])
    assert np.array_equal(one, same)
    assert noise_db(one, other_seed) > -10
    assert noise_db(one, other_prompt) > -50  # random weights: the text whispers


def test_what_would_clip_is_turned_down_as_a_whole(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    (quiet_AS,) = generator.generate(["a flute"], [0.5], [1])
    decode = generator.networks("float32").codec.decode
    monkeypatch.setattr(generator.networks("float32").codec, "decode", lambda z_BCT: 1_000 * decode(z_BCT))
    (loud_AS,) = generator.generate(["a flute"], [0.5], [1])
    assert np.abs(loud_AS).max() == pytest.approx(CEILING, rel=1e-5)
    assert np.corrcoef(quiet_AS.ravel(), loud_AS.ravel())[0, 1] == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(
    "asked",
    [
        {"seconds": [0.0]},
        {"seconds": [float("nan")]},
        {"seconds": [10.0]},
        {"seeds": [-1]},
        {"steps": 0},
        {"seeds": [1, 2]},
        {"prompts": []},
        {"prompts": ["\ud800"]},
    ],
)
def test_what_cannot_be_made_is_refused(generator: Generator, asked: dict[str, object]) -> None:
    request: dict[str, object] = {"prompts": ["x"], "seconds": [0.5], "seeds": [0]} | asked
    with pytest.raises(ModelInputError):
        generator.generate(**request)  # type: ignore[arg-type]


def test_float32_differs_in_a_batch_by_far_less(generator: Generator) -> None:
    (alone,) = generator.generate(["a kick drum"], [0.5], [3], precision="float32")
    together = generator.generate(["a flute", "a kick drum", "bells"], [0.7, 0.5, 0.2], [9, 3, 0], precision="float32")
    assert noise_db(alone, together[1]) < -80
    assert noise_db(alone, generator.generate(["a kick drum"], [0.5], [3])[0]) > -80  # it is another arithmetic


def test_work_is_told_of_every_step_and_can_be_ended_between_two(generator: Generator) -> None:
    steps = []
    generator.generate(["a flute"], [0.5], [1], steps=3, before_step=lambda: steps.append(1))
    assert len(steps) == 3

    def gone() -> None:
        steps.append(1)
        raise InterruptedError

    with pytest.raises(InterruptedError):
        generator.generate(["a flute"], [0.5], [1], steps=3, before_step=gone)
    assert len(steps) == 4


def test_generator_takes_no_guidance(generator: Generator) -> None:
    for asked in ({"guidance": 3.0}, {"negative_prompts": ["noise"]}):
        with pytest.raises(ModelInputError, match="guidance"):
            generator.generate(["a flute"], [0.5], [1], **asked)  # type: ignore[arg-type]


def test_base_is_guided_and_moves_away_from_a_negative_prompt(tmp_path: Path) -> None:
    base = Generator.load(make_package(tmp_path, kind="base")[0])
    plain, again, guided, away = (
        base.generate(["a flute"], [0.5], [1], **asked)[0]  # type: ignore[arg-type]
        for asked in ({}, {}, {"guidance": 6.0}, {"guidance": 6.0, "negative_prompts": ["a loud distorted guitar"]})
    )
    assert np.array_equal(plain, again)
    assert not np.array_equal(plain, guided) and not np.array_equal(guided, away)


def test_package_names_every_file_and_keeps_its_card(package: tuple[str, PackageManifest]) -> None:
    expected = {"generator.safetensors", "config.json", "scores.json"}
    assert set(package[1].files) == expected | {f"codec/{n}" for n in ("config.json", "model.safetensors", "card.md")}


def test_same_model_makes_the_same_package(package: tuple[str, PackageManifest], tmp_path: Path) -> None:
    _, again = make_package(tmp_path)
    assert again.files.keys() == package[1].files.keys()
    same = {name for name in again.files if again.files[name] == package[1].files[name]}
    assert same == set(again.files) - {"config.json"}  # which names the place of the codec


def test_a_checkpoint_sounds_as_its_package(generator: Generator, tmp_path: Path) -> None:
    models = make_models(tmp_path)
    loaded = Generator.load(models.generator[0], sha256=models.generator[1])
    assert (loaded.kind, loaded.package_sha256) == ("generator", models.generator[1])
    asked = (["a kick drum"], [0.5], [3])
    assert np.array_equal(loaded.generate(*asked)[0], generator.generate(*asked)[0])


def test_a_checkpoint_whose_codec_was_replaced_is_refused(tmp_path: Path) -> None:
    models = make_models(tmp_path)
    other = SpectralCodec(SpectralCodecConfig(dim=32, encoder_blocks=1, decoder_blocks=1, fine_blocks=1))
    save_codec(other, models.config.codec.uri)
    with pytest.raises(CheckpointError, match="latents are not those of the codec"):
        Generator.load(models.generator[0])


def test_another_hash_than_asked_for_is_refused(copy: Path) -> None:
    with pytest.raises(CheckpointError, match="has the hash"):
        Generator.load(copy.as_uri(), sha256="0" * 64)


@pytest.mark.parametrize("name", ["generator.safetensors", "config.json", "codec/model.safetensors", "scores.json"])
def test_tampered_file_is_refused(copy: Path, name: str) -> None:
    data = bytearray((copy / name).read_bytes())
    data[-2] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(CheckpointError, match="is not the one its manifest names"):
        Generator.load(copy.as_uri())


def test_extra_and_missing_files_are_refused(copy: Path) -> None:
    (copy / "weights.pkl").write_bytes(b"\x80\x04.")
    with pytest.raises(CheckpointError, match=r"weights\.pkl"):
        Generator.load(copy.as_uri())
    (copy / "weights.pkl").unlink()
    (copy / "scores.json").unlink()
    with pytest.raises(CheckpointError, match=r"scores\.json"):
        Generator.load(copy.as_uri())


def test_mis_shaped_weights_are_refused(copy: Path) -> None:
    tensors = safetensors.torch.load_file(copy / "generator.safetensors")
    name = next(iter(tensors))
    tensors[name] = torch.zeros(3, 3)
    safetensors.torch.save_file(tensors, copy / "generator.safetensors")
    rename_in_manifest(copy, "generator.safetensors")
    with pytest.raises(CheckpointError, match=r"not \("):
        Generator.load(copy.as_uri())


def test_lying_header_is_refused(copy: Path) -> None:
    data = (copy / "generator.safetensors").read_bytes()
    (copy / "generator.safetensors").write_bytes((2**40).to_bytes(8, "little") + data[8:])
    rename_in_manifest(copy, "generator.safetensors")
    with pytest.raises(CheckpointError, match="no safetensors file"):
        Generator.load(copy.as_uri())


@pytest.mark.parametrize("field", ["codec_sha256", "text_encoder"])
def test_codec_or_encoder_of_another_lineage_is_refused(copy: Path, field: str) -> None:
    manifest = json.loads((copy / "package.json").read_text())
    manifest["lineage"][field] = "another"
    (copy / "package.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError):
        Generator.load(copy.as_uri())


def test_runtime_imports_no_heavy_library() -> None:
    code = "import sys, sonarc.runtime.generator\n"
    code += "assert not {'transformers', 'diffusers', 'ray', 'mlflow', 'kfp'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
