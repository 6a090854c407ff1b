"""The sheet of data: its files are worth an ingest, and a small run of each part gives every row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from sonarc.bench.ingesting import MemorySize, SpeedSize, memory_rows, speed_rows
from sonarc.bench.limit import chain
from sonarc.bench.loading import LoaderSize, loader_rows
from sonarc.bench.sheet import BenchRow
from sonarc.bench.sounds import sound, write_sounds
from sonarc.bench.training import Size
from sonarc.contracts.config import DiTConfig
from sonarc.data.near import fingerprint

TINY = DiTConfig(width=32, depth=2, heads=2, ff_mult=2, patch=2, cond_width=32)


def test_no_two_sounds_are_alike() -> None:
    prints = np.stack([fingerprint(sound(number, 0.3, 44_100), 44_100) for number in range(200)])
    similar = prints @ prints.T - np.eye(len(prints))
    assert similar.max() < 0.99


def test_the_limit_does_what_ingest_does_to_the_sound(tmp_path: Path) -> None:
    (path,) = write_sounds(tmp_path / "sounds", 1, 0.5, 48_000, processes=1)
    assert soundfile.info(path).samplerate == 48_000
    assert 10_000 < chain(path, 44_100, -20.0) < 4 * 22_050


def rows(found: list[BenchRow]) -> dict[str, BenchRow]:
    return {row.name: row for row in found}


@pytest.mark.slow
def test_ingest_is_timed_against_its_limit(tmp_path: Path) -> None:
    found = rows(list(speed_rows(tmp_path, SpeedSize(few=24, files=120, seconds=0.5, repeats=1))))
    assert found["ingest_fraction_of_limit"].wanted == 0.8
    assert found["ingest_files_per_s"].value > 0
    assert 0 < found["ingest_fraction_of_limit"].value < 2


@pytest.mark.slow
def test_the_memory_of_all_processes_is_seen(tmp_path: Path) -> None:
    found = rows(list(memory_rows(tmp_path, MemorySize(clips=(8, 40)))))
    assert found["ingest_peak_mb.40"].value > 300, "a head, a driver and two workers"
    assert 0.5 < found["ingest_rss_40_over_8"].value < 2


@pytest.mark.slow
def test_the_loader_is_timed_on_a_disk_and_on_s3(tmp_path: Path) -> None:
    size = LoaderSize(clips=64, repeats=1, training=Size(TINY, frames=64, pretrain_batch=4, arc_batch=4, steps=2))
    found = rows(list(loader_rows(tmp_path, size)))
    for place in ("disk", "s3"):
        assert found[f"loader_over_arc_step.{place}"].wanted == 0.1
        assert found[f"loader_over_arc_step.{place}"].value > 0
        assert found[f"loader_fraction_of_tar.{place}"].value > 0
