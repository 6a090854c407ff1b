"""The pipeline with everything in a bucket of a real S3 server that stumbles, and no secret left anywhere."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
import s3fs
from s3 import S3, fault_proxy, reset, s3_server, slow, slow_down

from pipelines.local import run_pipeline, stage_records
from pipelines.places import Places
from sonarc.contracts import store
from sonarc.contracts.presets import load

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1_800)]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[S3]:
    with s3_server(tmp_path / "buckets") as found:
        yield found
    s3fs.S3FileSystem.clear_instance_cache()


def test_ingest_to_posttrain_on_s3(server: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load("ci")
    database = tmp_path / "mlflow" / "mlflow.db"
    places = Places(tmp_path / "runs", store.join(server.uri, "store"), f"sqlite:///{database}")
    with fault_proxy(server) as proxy:
        proxy.every = (23, (slow_down, reset, slow))
        s3fs.S3FileSystem.clear_instance_cache()
        for name, value in server.environment(proxy.endpoint).items():
            monkeypatch.setenv(name, value)
        first = run_pipeline(config, places, until="posttrain", quiet=True)
        again = run_pipeline(config, places, until="posttrain", quiet=True)
        requests, faults = proxy.requests, proxy.faults

        assert first.error is None and again.error is None
        records = stage_records(first.folder)
        outputs = [artifact for record in records.values() for artifact in record.result.outputs.values()]
        assert {artifact.uri.split("://")[0] for artifact in outputs} == {"s3"}
        assert all(record.cached for record in stage_records(again.folder).values())
        assert store.list_files(records["posttrain"].result.outputs["generator"].uri)
    assert faults > 10, f"{faults} faults in {requests} requests"
    _no_secrets(server, tmp_path, database)


def _no_secrets(server: S3, folder: Path, database: Path) -> None:
    """Neither key nor secret is in the bucket, in what the runs left, or in MLflow's database."""
    places = [path for path in folder.rglob("*") if path.is_file() and path.name != "rclone.log"]
    assert database in places and len(places) > 50
    for path in places:
        content = path.read_bytes()
        assert server.secret.encode() not in content, path
        assert server.key.encode() not in content, path
    with sqlite3.connect(database) as connection:
        dump = "\n".join(connection.iterdump())
    assert server.secret not in dump and server.key not in dump
