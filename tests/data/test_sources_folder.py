from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sounds import file_of, tone

from sonarc.contracts.config import SourceConfig
from sonarc.contracts.dataset import Reason
from sonarc.contracts.errors import SourceError
from sonarc.data.sources import fingerprint, read_source
from sonarc.data.sources.lines import MAX_LINE

SOUND = file_of(tone(0.1))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.wav", "b c%20.WAV", "d.wav"):
        (folder / name).write_bytes(SOUND)
    return folder


def source(folder: Path) -> SourceConfig:
    return SourceConfig(name="mine", uri=str(folder), licence="CC-BY-4.0", weight=0.5)


def refusals(folder: Path) -> dict[str, Reason]:
    return {refusal.path: refusal.reason for refusal in read_source(source(folder)).refused}


def write_rows(folder: Path, *rows: object) -> None:
    (folder / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_rows_are_read_with_their_defaults(folder: Path) -> None:
    write_rows(
        folder,
        {
            "path": "a.wav",
            "captions": ["A kick", "boom"],
            "concept": {"z": 1, "a": "k"},
            "group": "kit",
            "source": "drums",
        },
        {"path": "b c%20.WAV", "captions": "A hat"},
        {"path": "./d.wav", "captions": ["Bass"], "licence": "CC0-1.0"},
    )
    listing = read_source(source(folder))
    assert not listing.refused
    kick, hat, bass = listing.files
    assert (kick.source, kick.group, kick.concept) == ("drums", "kit", '{"a":"k","z":1}')
    assert kick.captions == ("A kick", "boom")
    assert (hat.source, hat.group, hat.concept) == ("mine", "mine/b c%20.WAV", '{"caption":"a hat"}')
    assert (hat.licence, bass.licence, hat.weight) == ("CC-BY-4.0", "CC0-1.0", 0.5)
    assert bass.path == "d.wav"


def test_bom_crlf_and_blank_lines_are_no_obstacle(folder: Path) -> None:
    row = json.dumps({"path": "a.wav", "captions": "kick"})
    (folder / "captions.jsonl").write_bytes(f"\ufeff{row}\r\n\r\n   \n".encode())
    assert [file.path for file in read_source(source(folder)).files] == ["a.wav"]


def test_a_bad_row_is_refused_and_the_rest_goes_on(folder: Path) -> None:
    good = json.dumps({"path": "a.wav", "captions": "kick"}).encode()
    bad = [
        b"{not json",
        b"[1, 2]",
        b'{"captions": "no path"}',
        b'{"path": "d.wav", "captions": "\xff\xfe"}',
        b'{"path": "d.wav", "captions": "half \\ud83d"}',
        b'{"path": "b c%20.WAV", "captions": "x", "concept": {"v": NaN}}',
        b'{"path": "x", "captions": "' + b"x" * (MAX_LINE + 10) + b'"}',
        b"[" * 200_000,
        good,
    ]
    (folder / "captions.jsonl").write_bytes(b"\n".join([*bad[:-1], good, b""]))
    listing = read_source(source(folder))
    assert [file.path for file in listing.files] == ["a.wav"]
    found = {refusal.path: refusal.reason for refusal in listing.refused}
    assert found["captions.jsonl:1"] is found["captions.jsonl:2"] is Reason.BAD_CAPTION
    assert found["captions.jsonl:3"] is Reason.MISSING
    assert found["captions.jsonl:4"] is Reason.BAD_CAPTION
    assert found["captions.jsonl:7"] is found["captions.jsonl:8"] is Reason.BAD_CAPTION
    assert found["b c%20.WAV"] is Reason.BAD_CAPTION
    assert sum(refusal.path == "d.wav" for refusal in listing.refused) == 1


@pytest.mark.parametrize(
    "path", ["../in/a.wav", "/etc/passwd", "x/../../a.wav", "..\\a.wav", "a.wav\x00", "a\n.wav", "\ud800.wav"]
)
def test_paths_that_escape_are_refused(folder: Path, path: str) -> None:
    write_rows(folder, {"path": path, "captions": "x"})
    assert refusals(folder)["captions.jsonl:1"] is Reason.UNSAFE_PATH


def test_links_out_of_the_folder_and_pipes_are_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.wav").write_bytes(SOUND)
    (folder / "link.wav").symlink_to(tmp_path / "secret.wav")
    (folder / "inner.wav").symlink_to(folder / "a.wav")
    os.mkfifo(folder / "pipe.wav")
    write_rows(folder, *({"path": f"{name}.wav", "captions": "x"} for name in ("link", "pipe", "inner", "gone")))
    listing = read_source(source(folder))
    assert [file.path for file in listing.files] == ["inner.wav"]
    found = {refusal.path: refusal.reason for refusal in listing.refused}
    assert found["link.wav"] is Reason.UNSAFE_PATH
    assert found["pipe.wav"] is found["gone.wav"] is Reason.MISSING


def test_audio_without_a_row_and_rows_that_repeat_are_told(folder: Path) -> None:
    (folder / "._a.wav").write_bytes(b"\0\5\x16\7 AppleDouble")
    (folder / "notes.txt").write_text("not audio")
    write_rows(folder, {"path": "a.wav", "captions": "x"}, {"path": "a.wav", "captions": "y"})
    assert refusals(folder) == {
        "a.wav": Reason.DUPLICATE,
        "b c%20.WAV": Reason.NO_CAPTION,
        "d.wav": Reason.NO_CAPTION,
    }


def test_captions_beside_the_files(folder: Path) -> None:
    (folder / "a.txt").write_text("a kick\nboom\n")
    (folder / "d.txt").write_text(" \n")
    listing = read_source(source(folder))
    assert [(file.path, file.captions) for file in listing.files] == [("a.wav", ("a kick", "boom"))]
    assert refusals(folder) == {"b c%20.WAV": Reason.NO_CAPTION, "d.wav": Reason.NO_CAPTION}


def test_a_missing_or_empty_source_is_one_clear_error(tmp_path: Path) -> None:
    for place in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(SourceError, match="mine") as caught:
            read_source(source(place))
        assert caught.value.hint


def test_the_fingerprint_follows_content_and_needs_neither_torch_nor_ray(folder: Path) -> None:
    write_rows(folder, {"path": "a.wav", "captions": "x"})
    before = fingerprint([source(folder)])
    assert fingerprint([source(folder)]) == before
    (folder / "a.wav").write_bytes(SOUND + b"\0")
    assert fingerprint([source(folder)]) != before
    check = "import sys, sonarc.data.sources; print(sorted({'torch', 'ray', 'kfp', 'mlflow'} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"


@settings(max_examples=60)
@given(content=st.binary(max_size=300))
def test_any_bytes_in_captions_jsonl_are_survived(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.mktemp("in")
    (folder / "a.wav").write_bytes(b"")
    (folder / "captions.jsonl").write_bytes(content)
    listing = read_source(source(folder))
    assert any(refusal.path == "a.wav" for refusal in listing.refused) or listing.files
