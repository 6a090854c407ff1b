"""The codec's sheet: a codec that gives back what it got meets every wish, one that gives noise none."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import Tensor

from sonarc.audio import encode_flac
from sonarc.bench import codec as bench
from sonarc.bench.sheet import BenchRow
from sonarc.contracts.config import SonarcConfig
from sonarc.contracts.presets import load
from sonarc.data.ingest import ClipRow, Ingested, finish_dataset, plan_shards, write_shard

RATE, SAMPLES = 44_100, 32_768


class _Given:
    """A codec whose reconstruction is `change` of its input."""

    sample_rate, channels, latent_channels, hop, sha256 = RATE, 2, 2, 1, "0" * 64

    def __init__(self, noise: float) -> None:
        self.noise = noise

    def frames(self, samples: int) -> int:
        return samples

    def encode(self, audio_BAS: Tensor) -> Tensor:
        return audio_BAS

    def decode(self, z_BCT: Tensor) -> Tensor:
        return z_BCT if not self.noise else torch.randn_like(z_BCT) * self.noise


def _note(number: int) -> np.ndarray:
    rng = np.random.default_rng(number)
    t = np.arange(SAMPLES) / RATE
    hertz = 220 * 2 ** (rng.integers(24) / 12)
    partials = sum(np.sin(2 * np.pi * hertz * k * t + rng.random()) / k for k in range(1, 8))
    left = partials * np.exp(-t * rng.uniform(0, 3)) * 0.1
    return np.stack([left, left * rng.uniform(0.5, 1.0)]).astype(np.float32)


def _hiss(number: int) -> np.ndarray:
    return (np.random.default_rng(number).standard_normal((2, SAMPLES)) * 0.05).astype(np.float32)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("bench")
    config: SonarcConfig = load("ci", [f"audio.samples={SAMPLES}", "data.train_fraction=0.5"])
    rows, flacs = [], {}
    for n in range(80):
        facts = (
            {"kind": "score", "instrument": ("harp", "flute")[n // 2 % 2], "form": "jig"}
            if n % 2
            else {"kind": "recorded", "category": ("loop", "glitch")[n // 2 % 2]}
        )
        sound = _note(n) if n % 2 else _hiss(n)
        key = f"{n:020x}-000"
        flacs[key] = encode_flac(sound, RATE)
        rows.append(
            ClipRow(
                key=key,
                captions=("a sound",),
                concept=json.dumps(facts),
                group=f"g{n}",
                source="toy",
                source_sha256="",
                start_s=0.0,
                seconds=SAMPLES / RATE,
                frames=SAMPLES,
                author="",
                licence="CC0-1.0",
                url="",
                loudness=-20.0,
                weight=1.0,
                stereo=True,
            )
        )
    uri = (root / "dataset").as_uri()
    plans = plan_shards(rows, config.data)
    written = [write_shard(uri, plan, flacs.__getitem__, root) for plan in plans]
    finish_dataset(uri, Ingested(plans, written, [], {}), config.audio, config.data)
    return uri


def _rows(dataset: str, noise: float, monkeypatch: pytest.MonkeyPatch) -> dict[str, BenchRow]:
    monkeypatch.setattr(bench, "load_codec", lambda uri: _Given(noise))
    monkeypatch.setattr(bench, "stored_bytes", lambda codec: 1_000_000)
    monkeypatch.setattr(bench, "COMPONENTS", 4)
    monkeypatch.setattr(bench, "_judges", dict)
    return {row.name: row for row in bench.measure(dataset, "given", threads=1).rows}


def test_a_codec_that_changes_nothing_meets_every_wish(dataset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = _rows(dataset, 0.0, monkeypatch)
    for kind in ("recorded", "rendered"):
        assert rows[f"fd_aisfx_{kind}"].value < 1e-3 * rows[f"fd_aisfx_{kind}"].floor + 1e-3  # type: ignore[operator]
        assert rows[f"accuracy_kept_{kind}"].value == 1.0
        assert rows[f"third_octave_max_{kind}"].value < 0.01
    assert rows["in_tune_rendered"].value == rows["harmonicity_kept_rendered"].value == 1.0
    assert "in_tune_recorded" not in rows, "hiss has no pitch to keep"
    assert rows["decode_realtime"].value > 0 and rows["file_mb"].value == 1.0


def test_noise_is_far_out_of_tune_and_of_a_wrong_spectrum(dataset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = _rows(dataset, 0.05, monkeypatch)
    assert rows["in_tune_rendered"].value < 0.2 and rows["harmonicity_kept_rendered"].value < 0.2
    assert rows["fd_aisfx_rendered"].value > 10 * rows["fd_aisfx_rendered"].floor  # type: ignore[operator]
    assert rows["third_octave_max_rendered"].value > 10
    assert {name for name, row in rows.items() if not row.met()} >= {"in_tune_rendered", "third_octave_max_rendered"}
