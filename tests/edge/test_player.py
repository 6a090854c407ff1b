"""Exported graphs and their player: PyTorch's sound without PyTorch, and nothing damaged is played."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from edge_folder import export_tiny, in_float32
from tiny_package import SAMPLES, make_package

from sonarc.contracts.errors import ConfigError, StoreError
from sonarc.contracts.hashing import sha256_path
from sonarc.edge.export import export_onnx
from sonarc.edge.player import CEILING, Player, PlayerError, levels, noise
from sonarc.edge.tracing import TOLERANCE
from sonarc.samplers.noise import noise_from_seeds
from sonarc.samplers.schedule import logsnr_schedule

PROMPT = "a slow fiddle tune, naïve & 東京"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    return export_tiny(tmp_path_factory.mktemp("edge"), "float32")


@pytest.fixture(scope="module")
def player(exported: tuple[str, Path]) -> Player:
    return Player(exported[1], "float32", threads=1)


def deviation(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


@pytest.mark.parametrize(("seed", "draw"), [(0, 0), (7, 3), (2**32 - 1, 1), (2**40 + 5, 0)])
def test_noise_is_the_samplers(seed: int, draw: int) -> None:
    wanted = noise_from_seeds([seed], (40, 9), draw).numpy()
    assert np.abs(noise(seed, draw, 40, 9) - wanted).max() < 1e-5


@pytest.mark.parametrize("steps", [1, 4, 50])
def test_levels_are_the_samplers(steps: int) -> None:
    np.testing.assert_allclose(levels(steps), logsnr_schedule(steps).numpy(), atol=1e-6)


@pytest.mark.parametrize(("seconds", "steps"), [(SAMPLES / 44_100, 4), (0.2, 2)])
def test_float32_is_what_pytorch_makes(exported: tuple[str, Path], player: Player, seconds: float, steps: int) -> None:
    wanted = in_float32(exported[0], PROMPT, seconds, 7, steps)
    wanted = wanted * min(1.0, CEILING / np.abs(wanted).max())
    found = player.generate(PROMPT, seconds, 7, steps)
    assert found.shape == wanted.shape == (2, round(seconds * 44_100))
    assert deviation(found, wanted) < 1e-3 and np.abs(found).max() > 0.01


def test_the_manifest_tells_sizes_hashes_and_deviations(exported: tuple[str, Path]) -> None:
    folder = exported[1]
    manifest = json.loads((folder / "manifest.json").read_text())
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert found - {"manifest.json"} == set(manifest["files"]) >= {"player.py", "README.md", "tokenizer.json"}
    assert all(sha256_path(folder / name) == file["sha256"] for name, file in manifest["files"].items())
    assert max(manifest["errors"]["float32"].values()) <= TOLERANCE


def test_the_folder_plays_by_itself_without_torch(exported: tuple[str, Path], tmp_path: Path, player: Player) -> None:
    program = (
        "import runpy, sys\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "finally: assert not {'torch', 'sonarc', 'pydantic', 'onnx'} & set(sys.modules)"
    )
    wav = tmp_path / "sound.wav"
    asked = [PROMPT, "-o", str(wav), "--seconds", "0.5", "--seed", "7", "--precision", "float32"]
    command = f"import sys; sys.argv = [{str(exported[1] / 'player.py')!r}, *sys.argv[1:]]\n{program}"
    subprocess.run([sys.executable, "-c", command, *asked], cwd=tmp_path, check=True, env={"PATH": ""}, timeout=300)
    audio_SA, rate = soundfile.read(wav)
    assert rate == 44_100
    assert np.abs(audio_SA.T - player.generate(PROMPT, 0.5, 7)).max() < 1e-3


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"seconds": 0.0}, "0.0 s"),
        ({"seconds": float("nan")}, "nan s"),
        ({"seconds": 60.0}, "at most 0.743 s"),
        ({"seed": -1}, "seed is -1"),
        ({"steps": 0}, "0 steps"),
        ({"prompt": "\ud800"}, "no valid Unicode"),
    ],
)
def test_what_cannot_be_made_is_refused(player: Player, asked: dict[str, object], told: str) -> None:
    with pytest.raises(PlayerError, match=told):
        player.generate(**({"prompt": PROMPT} | asked))  # type: ignore[arg-type]


def test_a_damaged_or_foreign_folder_is_not_played(exported: tuple[str, Path], tmp_path: Path) -> None:
    with pytest.raises(PlayerError, match="holds no exported model"):
        Player(tmp_path)
    copy = Path(shutil.copytree(exported[1], tmp_path / "copy", ignore=shutil.ignore_patterns("text_encoder.onnx")))
    with pytest.raises(PlayerError, match="cannot be read"):
        Player(copy)
    with pytest.raises(PlayerError, match="holds no int8 networks"):
        Player(copy, "int8")
    tampered = copy / "float32" / "text_encoder.onnx"
    tampered.write_bytes((copy / "float32" / "dit.onnx").read_bytes())
    with pytest.raises(PlayerError, match="not the file its manifest names"):
        Player(copy)


def test_nothing_else_is_overwritten_and_only_generators_go(exported: tuple[str, Path], tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(StoreError, match="is no exported model"):
        export_onnx(exported[0], tmp_path)
    base, _ = make_package(tmp_path / "base", kind="base")
    with pytest.raises(ConfigError, match="A base"):
        export_onnx(base, tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"mine.txt", "base"}
