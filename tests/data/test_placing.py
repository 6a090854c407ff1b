"""One file of a source: where it lies, and what becomes of it in a part."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from sounds import file_of, noise, tone

from sonarc.audio import Refused
from sonarc.audio.flac import decode_flac
from sonarc.contracts.config import AudioConfig, DataConfig
from sonarc.contracts.dataset import Reason
from sonarc.contracts.hashing import sha256_bytes
from sonarc.data.ingest import at_hand, place_clips
from sonarc.data.sources import SourceFile

AUDIO = AudioConfig(samples=16_384)
DATA = DataConfig()


def listed(path: Path) -> SourceFile:
    return SourceFile("mine", path.name, path.as_uri(), ("a sound",), "{}", "g")


def test_a_local_file_is_used_where_it_lies(tmp_path: Path) -> None:
    path = tmp_path / "tone.wav"
    path.write_bytes(file_of(tone()))
    assert at_hand(listed(path), DATA, tmp_path / "copy") == path
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize("kind", ["gone", "folder", "pipe", "huge"])
def test_what_cannot_be_read_is_refused_before_anyone_waits_for_it(tmp_path: Path, kind: str) -> None:
    path = tmp_path / kind
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "huge":
        path.touch()
        os.truncate(path, 1 << 40)  # sparse: it takes no place
    with pytest.raises(Refused) as refused:
        at_hand(listed(path), DATA, tmp_path / "copy")
    assert refused.value.reason is (Reason.TOO_LARGE if kind == "huge" else Reason.MISSING)


def test_clips_follow_what_a_part_holds_already(tmp_path: Path) -> None:
    path, part = tmp_path / "long.wav", tmp_path / "part"
    path.write_bytes(file_of(noise(1.0)))
    part.write_bytes(b"before, and what one that died had begun")
    placed = place_clips(path, listed(path), AUDIO, DATA, part, len(b"before"))
    assert placed.refused is None
    assert placed.sha256 == sha256_bytes(path.read_bytes()) == placed.rows[0].source_sha256
    assert len(placed.rows) == len(placed.sizes) == 3  # 44,100 samples of 16,384 a clip
    content, offset = part.read_bytes(), len(b"before")
    assert content.startswith(b"before")
    for row, size in zip(placed.rows, placed.sizes, strict=True):
        audio_AS = decode_flac(content[offset : offset + size], sample_rate=AUDIO.sample_rate, frames=row.frames)
        assert np.abs(audio_AS).max() > 0.01
        offset += size


def test_a_refused_file_is_known_by_its_bytes_and_leaves_nothing_behind(tmp_path: Path) -> None:
    path, part = tmp_path / "silent.wav", tmp_path / "part"
    path.write_bytes(file_of(np.zeros((2, 9_000), np.float32)))
    part.write_bytes(b"")
    placed = place_clips(path, listed(path), AUDIO, DATA, part, 0)
    assert placed.refused is not None and placed.refused.reason is Reason.SILENT
    assert placed.sha256 == sha256_bytes(path.read_bytes())
    assert (placed.rows, placed.sizes, part.read_bytes()) == ((), (), b"")
    gone = place_clips(tmp_path / "gone.wav", listed(path), AUDIO, DATA, part, 0)
    assert gone.refused is not None and gone.refused.reason is Reason.MISSING and gone.sha256 == ""
