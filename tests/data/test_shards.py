from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st

from sonarc.contracts.errors import DataError
from sonarc.contracts.hashing import sha256_bytes
from sonarc.data.shards import Member, ShardWriter, open_shard

KEYS = st.from_regex(r"[0-9a-f]{20}-[0-9]{3}", fullmatch=True)
FIRST, SECOND = "0" * 20 + "-000", "1" * 20 + "-000"


def write(path: Path, clips: dict[str, dict[str, bytes]]) -> dict[str, dict[str, int]]:
    with ShardWriter(path) as writer:
        return {key: writer.write(key, members) for key, members in clips.items()}


def members_of(data: bytes, folder: Path) -> list[Member]:
    path = folder / "shard.tar"
    path.write_bytes(data)
    with open_shard(str(path), sha256=sha256_bytes(data), size=len(data)) as reader:
        return list(reader)


def tar_of(*members: tarfile.TarInfo | str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for member in members:
            info = tarfile.TarInfo(member) if isinstance(member, str) else member
            info.size = 3 if info.isreg() else 0
            tar.addfile(info, io.BytesIO(b"abc") if info.isreg() else None)
    return buffer.getvalue()


def special(name: str, kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "/etc/passwd"
    return info


@settings(max_examples=30)
@given(st.dictionaries(KEYS, st.tuples(st.binary(max_size=1_500), st.binary(max_size=600)), min_size=1, max_size=5))
def test_members_lie_where_the_offsets_say(tmp_path_factory: pytest.TempPathFactory, clips: dict) -> None:
    folder = tmp_path_factory.mktemp("shards")
    described = {key: {"json": b, "flac": a} for key, (a, b) in clips.items()}
    offsets = write(folder / "a.tar", described)
    write(folder / "b.tar", described)
    data = (folder / "a.tar").read_bytes()
    assert (folder / "b.tar").read_bytes() == data
    with open_shard(str(folder / "a.tar"), sha256=sha256_bytes(data), size=len(data)) as reader:
        found = [(member.key, member.extension, member.offset, member.content) for member in reader]
        for key, extension, offset, content in found:
            assert described[key][extension] == content == reader.read(offset, len(content))
            assert offsets[key][extension] == offset
    assert [(key, extension) for key, extension, _, _ in found] == [(k, e) for k in clips for e in ("flac", "json")]


def test_bytes_do_not_depend_on_time_or_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.tar", {FIRST: {"flac": b"x", "json": b"{}"}})
    monkeypatch.setattr("time.time", lambda: 2_000_000_000.0)
    monkeypatch.setattr(os, "getuid", lambda: 12_345)
    write(tmp_path / "b.tar", {FIRST: {"flac": b"x", "json": b"{}"}})
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


def test_webdataset_reads_what_is_written(tmp_path: Path) -> None:
    write(tmp_path / "a.tar", {FIRST: {"flac": b"x", "json": b"{}"}, SECOND: {"flac": b"y", "json": b"[]"}})
    samples = list(webdataset.WebDataset(str(tmp_path / "a.tar"), shardshuffle=False))
    assert [(sample["__key__"], sample["flac"]) for sample in samples] == [(FIRST, b"x"), (SECOND, b"y")]


@pytest.mark.parametrize(
    "key", ["../../etc/x", "/abs", "a.b", "", "x" * 300, "a\nb", FIRST.upper() + ".", FIRST + "\0"]
)
def test_keys_that_are_no_keys_are_not_written(tmp_path: Path, key: str) -> None:
    with ShardWriter(tmp_path / "a.tar") as writer, pytest.raises(DataError, match="malformed"):
        writer.write(key, {"flac": b""})


def test_a_key_is_written_once(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "a.tar") as writer:
        writer.write(FIRST, {"flac": b""})
        with pytest.raises(DataError, match="already"):
            writer.write(FIRST, {"flac": b""})


def test_a_shard_cut_at_any_block_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.tar", {FIRST: {"flac": b"x" * 1_300, "json": b"{}"}})
    data = (tmp_path / "a.tar").read_bytes()
    for length in range(0, len(data), 512):
        (tmp_path / "cut.tar").write_bytes(data[:length])
        with (
            pytest.raises(DataError, match="manifest says"),
            open_shard(str(tmp_path / "cut.tar"), sha256=sha256_bytes(data), size=len(data)),
        ):
            pass


def test_a_changed_byte_or_a_missing_shard_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.tar", {FIRST: {"flac": b"x" * 600, "json": b"{}"}})
    data = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(data[:700] + b"y" + data[701:])
    with pytest.raises(DataError), open_shard(str(tmp_path / "a.tar"), sha256=sha256_bytes(data), size=len(data)):
        pass
    with pytest.raises(DataError, match="missing"), open_shard(str(tmp_path / "no.tar"), sha256="", size=1):
        pass


@pytest.mark.parametrize(
    "data",
    [
        tar_of(special(f"{FIRST}.flac", tarfile.SYMTYPE)),
        tar_of(special(f"{FIRST}.flac", tarfile.LNKTYPE)),
        tar_of(special(f"{FIRST}.flac", tarfile.CHRTYPE)),
        tar_of(special(f"{FIRST}.flac", tarfile.FIFOTYPE)),
        tar_of("../../etc/x.flac"),
        tar_of("/etc/passwd"),
        tar_of("evil.pkl"),
        tar_of(f"{FIRST}"),
        tar_of(f"{FIRST}.flac", f"{FIRST}.flac"),
        tar_of(f"{FIRST}.flac", f"{SECOND}.flac", f"{FIRST}.json"),
        b"garbage" * 200,
        b"\xff" * 512,
    ],
)
def test_strange_members_are_refused_even_under_the_right_hash(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        members_of(data, tmp_path)


def test_a_size_that_lies_is_refused(tmp_path: Path) -> None:
    data = bytearray(tar_of(f"{FIRST}.flac"))
    info = tarfile.TarInfo(f"{FIRST}.flac")
    info.size = 10_000_000
    data[:512] = info.tobuf()
    with pytest.raises(DataError):
        members_of(bytes(data), tmp_path)


def test_reading_beyond_the_end_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.tar", {FIRST: {"flac": b"x", "json": b"{}"}})
    data = (tmp_path / "a.tar").read_bytes()
    with open_shard(str(tmp_path / "a.tar"), sha256=sha256_bytes(data), size=len(data)) as reader:
        for offset, size in ((len(data) - 1, 2), (-1, 1), (0, -1)):
            with pytest.raises(DataError):
                reader.read(offset, size)
