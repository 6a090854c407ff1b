"""Int8 is a quarter of float32, and sounds alike."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from edge_folder import export_tiny

from sonarc.edge.player import Player
from sonarc.edge.tracing import TOLERANCE

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1_800)]
PROMPT = "a slow fiddle tune, naïve & 東京"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_tiny(tmp_path_factory.mktemp("edge"), "float32", "int8")[1]


def test_it_is_taken_where_there_is_one_and_sounds_alike(folder: Path) -> None:
    light = Player(folder, threads=1)
    assert light.precision == "int8"
    exact, found = (player.generate(PROMPT, 0.5, 7) for player in (Player(folder, "float32", threads=1), light))
    assert 0 < np.sum((exact - found) ** 2) / np.sum(exact**2) < 0.1
    assert np.array_equal(found, Player(folder, keep=False, threads=1).generate(PROMPT, 0.5, 7))


def test_the_manifest_tells_what_it_saves_and_costs(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    assert TOLERANCE < max(manifest["errors"]["int8"].values()) < 0.5
    size = {p: sum(manifest["files"][n]["bytes"] for n in g.values()) for p, g in manifest["graphs"].items()}
    assert size["int8"] < 0.3 * size["float32"]
