"""The store on a real S3 server, and what becomes of it when that misbehaves."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import s3fs
from loopback import serving
from s3 import S3, Proxy, expired, fault_proxy, reset, s3_server, slow, slow_down
from sounds import file_of, tone

from sonarc.contracts import store
from sonarc.contracts.config import DataConfig, SourceConfig
from sonarc.contracts.errors import StoreError
from sonarc.data.ingest import at_hand
from sonarc.data.sources import fingerprint, read_source


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with s3_server(tmp_path_factory.mktemp("s3") / "buckets") as found:
        yield found


def _speak(server: S3, endpoint: str, patch: pytest.MonkeyPatch) -> None:
    s3fs.S3FileSystem.clear_instance_cache()
    for name, value in server.environment(endpoint).items():
        patch.setenv(name, value)


@pytest.fixture
def bucket(server: S3, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    _speak(server, "", monkeypatch)
    yield server.uri
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def proxied(server: S3, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    with fault_proxy(server) as proxy:
        _speak(server, proxy.endpoint, monkeypatch)
        yield proxy
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.parametrize("name", ["plain.bin", "with space.bin", "100%.bin", "a+b&c=d.bin", "ünï/cødé.bin"])
def test_what_is_written_is_read(bucket: str, name: str) -> None:
    uri = store.join(bucket, "round", name)
    digest = store.write_bytes(uri, b"content")

    assert store.read_bytes(uri) == b"content" and digest == store.sha256_bytes(b"content")
    assert store.exists(uri) and store.list_files(store.join(bucket, "round"))[name] == 7
    assert store.local_path(uri) is None


def test_folders_come_and_go_whole(bucket: str, tmp_path: Path) -> None:
    (tmp_path / "big.bin").write_bytes(b"x" * 6_000_000)
    folder = store.join(bucket, "folder")
    store.move_in(tmp_path / "big.bin", store.join(folder, "deep", "big.bin"))
    store.write_json(store.join(folder, "a.json"), {"a": 1})

    place = store.fetch_folder(folder, tmp_path / "copy")
    assert sorted(p.relative_to(place).as_posix() for p in place.rglob("*") if p.is_file()) == [
        "a.json",
        "deep/big.bin",
    ]
    store.remove_file(store.join(folder, "a.json"))
    assert store.list_files(folder) == {"deep/big.bin": 6_000_000}
    store.remove_folder(folder)
    assert not store.exists(folder) and store.list_files(folder) == {}
    with pytest.raises(StoreError, match="Nothing is stored"):
        store.read_bytes(store.join(folder, "a.json"))


def test_what_another_process_wrote_is_seen_at_once(bucket: str) -> None:
    folder = store.join(bucket, "shared")
    store.write_bytes(store.join(folder, "one"), b"1")
    assert list(store.list_files(folder)) == ["one"] and not store.exists(store.join(folder, "two"))
    code = "import sys; from sonarc.contracts import store; store.write_bytes(sys.argv[1], b'2')"
    subprocess.run([sys.executable, "-c", code, store.join(folder, "two")], check=True)

    assert store.exists(store.join(folder, "two")) and list(store.list_files(folder)) == ["one", "two"]


def test_a_file_is_created_once(bucket: str, tmp_path: Path) -> None:
    for place in (bucket, tmp_path.as_uri()):
        where = store.join(place, "audit", "000001.json")
        assert store.create(where, b"mine")
        assert not store.create(where, b"theirs")
        assert store.read_bytes(where) == b"mine" and list(store.list_files(store.join(place, "audit"))) == [
            "000001.json"
        ]


def test_sources_are_read_from_a_bucket(bucket: str, tmp_path: Path) -> None:
    sound = file_of(tone(0.1))
    for name in ("a.wav", "b c%20.wav"):
        store.write_bytes(store.join(bucket, "source", name), sound)
    store.write_bytes(store.join(bucket, "source", "captions.jsonl"), b'{"path": "a.wav", "captions": "a"}\n')
    store.write_bytes(store.join(bucket, "table.csv"), b"path,captions\nb c%20.wav,b\na.wav,a\n")
    folder = SourceConfig(name="folder", uri=store.join(bucket, "source"))
    table = SourceConfig(name="table", uri=store.join(bucket, "table.csv"), audio=store.join(bucket, "source"))

    assert [file.path for file in read_source(folder).files] == ["a.wav"]
    listing = read_source(table)
    assert [file.path for file in listing.files] == ["b c%20.wav", "a.wav"]
    assert at_hand(listing.files[0], DataConfig(), tmp_path / "copy").read_bytes() == sound
    assert fingerprint([folder]) == fingerprint([folder]) != fingerprint([table])


def test_a_store_that_stumbles_is_asked_again(proxied: Proxy) -> None:
    uri = "s3://sonarc/stumbling/file.bin"
    proxied.plan = [slow_down, reset, slow]
    store.write_bytes(uri, b"x" * 100_000)
    proxied.plan = [reset, slow_down, slow]
    assert store.read_bytes(uri) == b"x" * 100_000
    proxied.plan = [slow_down, slow_down]
    assert list(store.list_files("s3://sonarc/stumbling")) == ["file.bin"]
    assert proxied.faults >= 7


def test_wrong_keys_are_a_clear_error_that_does_not_repeat_them(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(StoreError) as caught:
        store.read_bytes(store.join(bucket, "round", "plain.bin"))
    assert "not-the-secret" not in str(caught.value)


@contextmanager
def lender(server: S3, lent: list[str]) -> Iterator[str]:
    """Lends credentials as a container's or a pod's agent does, the first for seconds, each in a session of its own."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            lent.append(f"session {len(lent)}")
            ends = datetime.now(UTC) + (timedelta(seconds=2) if len(lent) == 1 else timedelta(hours=6))
            body = json.dumps(
                {
                    "AccessKeyId": server.key,
                    "SecretAccessKey": server.secret,
                    "Token": lent[-1],
                    "Expiration": ends.strftime("%Y-%m-%dT%H:%M:%SZ"),
                }
            ).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    with serving(Handler) as port:
        yield f"http://127.0.0.1:{port}/credentials"


def test_lent_credentials_are_renewed_when_they_expire(
    proxied: Proxy, server: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    lent: list[str] = []
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with lender(server, lent) as address:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", address)
        s3fs.S3FileSystem.clear_instance_cache()
        store.write_bytes("s3://sonarc/lent/file", b"content")
        proxied.every = (1, (expired("session 0"),))
        assert store.read_bytes("s3://sonarc/lent/file") == b"content"
    assert lent[0] == "session 0" and len(lent) > 1


def test_given_credentials_that_expire_are_a_clear_error(proxied: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "given")
    s3fs.S3FileSystem.clear_instance_cache()
    store.write_bytes("s3://sonarc/given/file", b"content")
    proxied.every = (1, (expired("given"),))
    with pytest.raises(StoreError, match="have expired") as caught:
        store.write_bytes("s3://sonarc/given/file", b"other")
    assert "run again" in str(caught.value.hint)
    with pytest.raises(StoreError, match="Bad Request") as caught:  # an answer to HEAD has no body to say more
        store.read_bytes("s3://sonarc/given/file")
    assert "have not expired" in str(caught.value.hint)
    proxied.every = None
    assert store.read_bytes("s3://sonarc/given/file") == b"content"


@pytest.mark.slow
def test_no_server_is_a_clear_error(server: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    _speak(server, "http://127.0.0.1:9", monkeypatch)
    with pytest.raises(StoreError, match="Could not") as caught:
        store.write_bytes("s3://sonarc/x", b"x")
    assert "AWS_ENDPOINT_URL" in str(caught.value.hint) or "reached" in str(caught.value.hint)
