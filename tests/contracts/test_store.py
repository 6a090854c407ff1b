from __future__ import annotations

import errno
import hashlib
from pathlib import Path
from typing import NoReturn

import pytest

from sonarc.contracts import store
from sonarc.contracts.errors import StoreError


def test_paths_and_uris_name_the_same_place(tmp_path: Path) -> None:
    assert store.as_uri(tmp_path) == store.as_uri(str(tmp_path)) == tmp_path.as_uri()
    assert store.join(str(tmp_path), "a", "b") == (tmp_path / "a" / "b").as_uri()
    assert store.local_path(tmp_path.as_uri()) == tmp_path
    assert store.as_uri("s3://bucket/folder/") == "s3://bucket/folder"


@pytest.mark.parametrize(
    "uri", ["http://x/y", "ftp://x", "gs://b/k", "memory://x", "github://a:b@c", "zip://x::s3://y"]
)
def test_other_schemes_are_refused(uri: str) -> None:
    with pytest.raises(StoreError, match="scheme"):
        store.as_uri(uri)


def test_credentials_in_an_address_are_refused_and_not_repeated() -> None:
    with pytest.raises(StoreError) as caught:
        store.as_uri("s3://key:hunter2@bucket/folder")
    assert "hunter2" not in str(caught.value)


def test_a_file_is_written_whole_and_hashed(tmp_path: Path) -> None:
    uri = store.join(str(tmp_path), "deep", "file.bin")
    assert store.write_bytes(uri, b"one") == hashlib.sha256(b"one").hexdigest()
    store.write_bytes(uri, b"two")
    assert store.read_bytes(uri) == b"two"
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["file.bin"]


def test_a_full_disk_is_one_sentence_and_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = (tmp_path / "file.json").as_uri()
    store.write_json(uri, {"version": 1})

    def full(descriptor: int) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("sonarc.contracts.store.os.fsync", full)
    with pytest.raises(StoreError, match="disk is full") as caught:
        store.write_json(uri, {"version": 2})
    assert "Free some space" in caught.value.hint
    assert store.read_json(uri) == {"version": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["file.json"]


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    uri = (tmp_path / "missing.json").as_uri()
    assert not store.exists(uri)
    assert store.list_files(uri) == {}
    for read in (store.read_bytes, store.read_json):
        with pytest.raises(StoreError, match="Nothing is stored"):
            read(uri)
    with pytest.raises(StoreError, match="Nothing is stored"):
        store.fetch_folder(uri, tmp_path)


def test_json_is_strict_both_ways(tmp_path: Path) -> None:
    uri = (tmp_path / "x.json").as_uri()
    with pytest.raises(ValueError, match="JSON"):
        store.write_json(uri, {"x": float("nan")})
    assert not store.exists(uri)
    store.write_bytes(uri, b"{")
    with pytest.raises(StoreError, match="not valid JSON"):
        store.read_json(uri)


def test_a_folder_is_listed_copied_and_removed(tmp_path: Path) -> None:
    local = tmp_path / "local.txt"
    local.write_text("abc", encoding="utf-8")
    folder = (tmp_path / "folder").as_uri()
    store.move_in(local, store.join(folder, "a", "b.txt"))
    assert not local.exists()
    store.write_bytes(store.join(folder, "c"), b"")
    assert store.list_files(folder) == {"a/b.txt": 3, "c": 0}
    assert (store.fetch_folder(folder, tmp_path / "copy") / "a" / "b.txt").read_text(encoding="utf-8") == "abc"
    store.remove_folder(folder)
    store.remove_folder(folder)
    assert store.list_files(folder) == {}


def test_a_file_moves_in_from_another_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local, target = tmp_path / "local", tmp_path / "store" / "file"
    local.write_bytes(b"new")
    target.parent.mkdir()
    target.write_bytes(b"old")
    rename = Path.replace

    def within_a_disk(path: Path, to: Path) -> Path:
        if path == local:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return rename(path, to)

    monkeypatch.setattr(Path, "replace", within_a_disk)
    store.move_in(local, target.as_uri())
    assert target.read_bytes() == b"new"
    assert not local.exists()
    assert [path.name for path in target.parent.iterdir()] == ["file"]


def test_the_cache_folder_can_be_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SONARC_CACHE", str(tmp_path))
    assert store.cache_root() == tmp_path
    assert store.default_store() == (tmp_path / "store").as_uri()
