"""Sources, ingest and encode as jobs on a local Ray."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from sounds import file_of, noise, tone

from components.launch.outside import with_outside
from ray_jobs import encode, ingest, sources
from sonarc.codec.config import SpectralCodecConfig
from sonarc.codec.package import load_codec, save_codec
from sonarc.codec.spectral import SpectralCodec
from sonarc.contracts.config import SonarcConfig, SourceConfig
from sonarc.contracts.dataset import read_dataset, read_latents
from sonarc.contracts.errors import DataError, SourceError, StoreError
from sonarc.contracts.presets import ci
from sonarc.contracts.progress import read_progress
from sonarc.contracts.result import StageRequest, StageResult, cached_result
from sonarc.contracts.stage import execute
from sonarc.data import load_latents, read_clips
from sonarc.data.sources import SourceFile
from sonarc.tracking.runs import NullRun

JOBS = {"sources": (sources, ()), "ingest": (ingest, ("sources",)), "encode": (encode, ("ingest",))}

pytestmark = pytest.mark.usefixtures("ray_local")


class Pipeline:
    """Runs stages one after the other on one store."""

    def __init__(self, place: Path, config: SonarcConfig) -> None:
        self.place, self.config = place, config
        self.folders: dict[str, str] = {}

    def request(self, stage: str) -> StageRequest:
        return StageRequest(
            stage=stage,
            store=(self.place / "store").as_uri(),
            config=self.config,
            inputs={name: self.folders[name] for name in JOBS[stage][1]},
            progress=str(self.place / "progress.jsonl"),
        )

    def run(self, stage: str) -> StageResult:
        request = self.request(stage)
        self.folders[stage] = request.folder()
        return execute(request, JOBS[stage][0].run, NullRun())


def path_of(uri: str) -> Path:
    return Path(uri.removeprefix("file://"))


def contents(uri: str) -> dict[str, bytes]:
    folder = path_of(uri)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Forty sounds and one of every kind of damage."""
    folder = tmp_path / "in"
    folder.mkdir()
    files = {f"noise-{n}.wav": file_of(noise(0.1 + 0.01 * n, seed=n)) for n in range(40)}
    absurd = tone()
    absurd[0, 5] = np.nan
    whole, lossless = file_of(tone()), file_of(noise(), "FLAC")
    files |= {
        "truncated.wav": whole[:5_000],
        "page.wav": b"<html><h1>404</h1></html>" * 30,
        "nothing.wav": b"",
        "silent.wav": file_of(np.zeros((2, 9_000), np.float32)),
        "nan.wav": file_of(absurd, "WAV", "FLOAT"),
        "corrupt.flac": lossless[:20_000] + b"\0" * 300 + lossless[20_300:],
        "slow.wav": whole[:24] + b"\1\0\0\0" + whole[28:],
        "wide.wav": whole[:22] + b"\xff\xff" + whole[24:],
        "bomb.flac": file_of(np.zeros((2, 2_000_000), np.float32), "FLAC"),
        "copy.wav": file_of(noise(0.1, seed=0)),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    rows = [{"path": name, "captions": [f"the sound {name}"], "group": f"kit {n // 4}"} for n, name in enumerate(files)]
    (folder / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "not json\n")
    (folder / "stray.wav").write_bytes(whole)
    return folder


@pytest.fixture
def config(source: Path) -> SonarcConfig:
    base = ci()
    return base.model_copy(
        update={
            "compute": base.compute.model_copy(update={"data_tasks": 1}),  # a task more is a process more to start
            "data": base.data.model_copy(
                update={
                    "sources": (SourceConfig(name="mine", uri=str(source)),),
                    "shard_clips": 16,
                    "max_source_samples": 3_000_000,
                }
            ),
        }
    )


def with_tasks(config: SonarcConfig, tasks: int) -> SonarcConfig:
    return config.model_copy(update={"compute": config.compute.model_copy(update={"data_tasks": tasks})})


def test_damaged_files_end_in_quarantine_and_the_rest_in_the_dataset(config: SonarcConfig, tmp_path: Path) -> None:
    pipeline = Pipeline(tmp_path, config)
    pipeline.run("sources")
    result = pipeline.run("ingest")
    quarantined = {
        "truncated": 1,
        "not_audio": 1,
        "empty_file": 1,
        "silent": 1,
        "non_finite": 1,
        "corrupt": 1,
        "bad_sample_rate": 1,
        "bad_channels": 1,
        "too_large": 1,
        "duplicate": 1,
        "bad_caption": 1,
        "no_caption": 1,
    }
    dataset = result.outputs["dataset"]
    manifest = read_dataset(dataset.uri)
    assert manifest.quarantined == quarantined
    assert dataset.sha256 == manifest.sha256()
    assert {k.removeprefix("quarantined_"): v for k, v in result.counts.items() if "quarantined_" in k} == quarantined
    assert result.counts["quarantined"] == 12
    assert result.counts["clips"] == manifest.clips == 40
    assert sum(result.counts[split] for split in ("train", "valid", "test")) == manifest.clips
    table = {row["path"]: row for row in pq.read_table(path_of(dataset.uri) / "quarantine.parquet").to_pylist()}
    assert table["stray.wav"]["reason"] == "no_caption"
    assert table["captions.jsonl:51"]["reason"] == "bad_caption"
    assert all(row["detail"] and row["source"] == "mine" for row in table.values())
    assert len(list(read_clips(dataset.uri))) == manifest.clips
    assert result.metrics["stereo_share"] == 1.0
    events, _ = read_progress(tmp_path / "progress.jsonl")
    assert {event.unit for event in events if event.stage == "ingest"} == {"files", "shards"}
    assert not (path_of(pipeline.folders["ingest"]) / "parts").exists()


def test_a_rerun_is_byte_identical_whatever_the_parallelism_and_what_a_killed_run_left(
    config: SonarcConfig, tmp_path: Path
) -> None:
    first = Pipeline(tmp_path, with_tasks(config, 1))
    first.run("sources")
    before = contents(first.run("ingest").outputs["dataset"].uri)

    folder = path_of(first.folders["ingest"])
    (folder / "result.json").unlink()
    (folder / "dataset/dataset.json").unlink()  # killed between the last shard and the manifest
    (folder / "dataset/shards/train-000009.tar").write_bytes(b"half a shard")
    (folder / "parts").mkdir()
    (folder / "parts/00000000.part").write_bytes(b"half a part")
    assert cached_result(first.folders["ingest"]) is None
    with pytest.raises(StoreError):
        next(read_clips(str(folder / "dataset")))

    second = Pipeline(tmp_path, with_tasks(config, 3))
    second.run("sources")
    again = second.run("ingest")
    assert second.folders["ingest"] == first.folders["ingest"]
    assert contents(again.outputs["dataset"].uri) == before
    assert not (folder / "parts").exists()


def test_a_source_that_is_missing_or_unusable_is_one_clear_error(
    config: SonarcConfig, source: Path, tmp_path: Path
) -> None:
    gone = config.model_copy(
        update={"data": config.data.model_copy(update={"sources": (SourceConfig(name="gone", uri="nowhere/at/all"),)})}
    )
    with pytest.raises(SourceError, match="'gone'"):
        Pipeline(tmp_path, gone).run("sources")
    (source / "captions.jsonl").write_text(json.dumps({"path": "page.wav", "captions": "a page"}))
    pipeline = Pipeline(tmp_path, config)
    pipeline.run("sources")
    with pytest.raises(SourceError, match=r"No clip was accepted.*1 not_audio"):
        pipeline.run("ingest")
    assert not list(path_of(pipeline.folders["ingest"]).rglob("dataset.json"))


def test_changed_files_change_the_hash_of_the_sources(config: SonarcConfig, source: Path, tmp_path: Path) -> None:
    pipeline = Pipeline(tmp_path, config)
    before = pipeline.run("sources").outputs["sources"].sha256
    assert pipeline.run("sources").outputs["sources"].sha256 == before
    (source / "noise-1.wav").write_bytes(file_of(noise(0.3, seed=99)))
    assert pipeline.run("sources").outputs["sources"].sha256 != before


@pytest.fixture
def codec(tmp_path: Path) -> str:
    """The location of a small untrained codec."""
    torch.manual_seed(0)
    shape = SpectralCodecConfig(
        latent_channels=8, phase_bins=32, dim=32, encoder_blocks=1, decoder_blocks=1, fine_blocks=1
    )
    save_codec(SpectralCodec(shape), str(tmp_path / "codec"))
    return str(tmp_path / "codec")


def test_latents_are_those_of_the_codec_and_bound_to_it(config: SonarcConfig, codec: str, tmp_path: Path) -> None:
    chosen = config.model_copy(update={"codec": config.codec.model_copy(update={"uri": codec, "batch": 8})})
    pipeline = Pipeline(tmp_path, chosen)
    pipeline.run("sources")
    dataset = pipeline.run("ingest").outputs["dataset"]
    result = pipeline.run("encode")
    latents = result.outputs["latents"]
    loaded = load_codec(codec)
    manifest = read_latents(latents.uri)
    assert latents.sha256 == manifest.sha256()
    assert (manifest.encoder_sha256, manifest.hop, manifest.channels, manifest.frames) == (
        loaded.encoder_sha256,
        1024,
        8,
        64,
    )
    assert result.counts["clips"] == read_dataset(dataset.uri).clips
    found = load_latents(latents.uri, dataset.uri, "train", encoder_sha256=loaded.encoder_sha256)
    for n, clip in zip(range(3), read_clips(dataset.uri, "train"), strict=False):
        assert found.keys[n] == clip.key
        expected = loaded.encode(torch.from_numpy(clip.audio_AS)[None])[0].numpy()
        assert np.abs(found.latents_NCT[n] - expected).max() < 0.05 * expected.std()
    assert result.metrics["latent_std"] > 0
    before = contents(latents.uri)
    assert contents(pipeline.run("encode").outputs["latents"].uri) == before


def test_a_codec_of_another_rate_is_refused(config: SonarcConfig, tmp_path: Path) -> None:
    shape = SpectralCodecConfig(
        sample_rate=22_050, latent_channels=8, dim=16, encoder_blocks=1, decoder_blocks=1, fine_blocks=1
    )
    save_codec(SpectralCodec(shape), str(tmp_path / "slow"))
    chosen = config.model_copy(update={"codec": config.codec.model_copy(update={"uri": str(tmp_path / "slow")})})
    pipeline = Pipeline(tmp_path, chosen)
    pipeline.run("sources")
    pipeline.run("ingest")
    with pytest.raises(DataError, match="22050 Hz"):
        pipeline.run("encode")
    assert not list(path_of(pipeline.folders["encode"]).rglob("latents.json"))


class Growing(Pipeline):
    """Runs the data stages again and again on one store, each time finding the parent as the launcher does."""

    def request(self, stage: str) -> StageRequest:
        return with_outside(super().request(stage))

    def run(self, stage: str) -> StageResult:
        found = cached_result(self.request(stage).folder())
        if found is None:
            return super().run(stage)
        self.folders[stage] = self.request(stage).folder()
        return found

    def all(self, *stages: str) -> dict[str, StageResult]:
        return {stage: self.run(stage) for stage in stages or JOBS}


def add(folder: Path, name: str, data: bytes, group: str) -> None:
    (folder / name).write_bytes(data)
    with (folder / "captions.jsonl").open("a") as file:
        file.write(json.dumps({"path": name, "captions": [f"the sound {name}"], "group": group}) + "\n")


def test_a_second_run_takes_only_what_is_new(
    config: SonarcConfig, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = Growing(tmp_path, config)
    first = pipeline.all()
    before = read_dataset(first["ingest"].outputs["dataset"].uri)
    old_rows = {
        row["key"]: row
        for row in pq.read_table(path_of(first["ingest"].outputs["dataset"].uri) / "index.parquet").to_pylist()
    }
    again = pipeline.all()
    assert again["ingest"].outputs == first["ingest"].outputs and again["ingest"].key == first["ingest"].key

    for number in range(6):
        add(source, f"new-{number}.wav", file_of(noise(0.2, seed=100 + number)), f"new kit {number}")
    add(source, "old-kit.wav", file_of(noise(0.2, seed=200)), "kit 0")
    add(source, "copy-of-old.wav", (source / "noise-3.wav").read_bytes(), "kit 9")
    (source / "noise-5.wav").unlink()
    rows = [json.loads(line) for line in (source / "captions.jsonl").read_text().splitlines() if line != "not json"]
    for row in rows:
        if row["path"] == "noise-7.wav":
            row["captions"] = ["a better caption"]
    (source / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    second = pipeline.all()

    dataset = second["ingest"].outputs["dataset"].uri
    after = read_dataset(dataset)
    assert (after.version, after.parent) == (2, before.sha256())
    assert second["ingest"].counts["new_clips"] == 7 and after.clips == before.clips + 7
    assert set(before.shards) < set(after.shards)
    new_rows = {row["key"]: row for row in pq.read_table(path_of(dataset) / "index.parquet").to_pylist()}
    better = {key for key, row in new_rows.items() if row["captions"] == ["a better caption"]}
    assert len(better) == 1
    assert all(new_rows[key] == row for key, row in old_rows.items() if key not in better)
    assert after.quarantined["duplicate"] == 2 and after.quarantined["missing_file"] == 1
    assert after.quarantined["corrupt"] == before.quarantined["corrupt"]
    assert len(list(read_clips(dataset))) == after.clips
    new_shards = len(after.shards) - len(before.shards)
    assert second["encode"].counts["new_shards"] == new_shards < second["encode"].counts["shards"]
    latents = second["encode"].outputs["latents"].uri
    assert len(load_latents(latents, dataset, "train")) == after.splits["train"].clips

    third = pipeline.all()
    assert third["ingest"].outputs == second["ingest"].outputs
    (source / "captions.jsonl").write_text((source / "captions.jsonl").read_text() + "\n")
    nothing_new = pipeline.all()
    assert nothing_new["ingest"].outputs == second["ingest"].outputs
    assert nothing_new["ingest"].counts["new_clips"] == 0


def test_what_has_not_changed_is_not_read_again(
    config: SonarcConfig, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = Growing(tmp_path, config)
    pipeline.all("sources", "ingest")
    looked_at: list[str] = []
    real = ingest._ingest_files

    def spied(files: list[SourceFile], *args: Any) -> Any:
        looked_at.extend(file.path for file in files)
        return real(files, *args)

    monkeypatch.setattr(ingest, "_ingest_files", spied)
    add(source, "new.wav", file_of(noise(0.2, seed=99)), "kit")
    pipeline.all("sources", "ingest")
    assert looked_at == ["new.wav"]


def test_the_same_growth_gives_the_same_bytes_elsewhere(config: SonarcConfig, source: Path, tmp_path: Path) -> None:
    made = []
    for name in ("here", "there"):
        folder = tmp_path / f"source-{name}"
        shutil.copytree(source, folder)
        settings = config.model_copy(
            update={"data": config.data.model_copy(update={"sources": (SourceConfig(name="mine", uri=str(folder)),)})}
        )
        pipeline = Growing(tmp_path / name, settings)
        pipeline.run("sources")
        pipeline.run("ingest")
        add(folder, "new.wav", file_of(noise(0.2, seed=99)), "kit")
        pipeline.run("sources")
        made.append(contents(pipeline.run("ingest").outputs["dataset"].uri))
    assert made[0] == made[1]


def test_a_named_dataset_takes_another_source_and_another_weight(
    config: SonarcConfig, source: Path, tmp_path: Path
) -> None:
    more = tmp_path / "more"
    more.mkdir()
    add(more, "hum.wav", file_of(tone(0.5)), "hums")
    one = SourceConfig(name="mine", uri=str(source))

    def grown(name: str, *sources: SourceConfig) -> StageResult:
        data = config.data.model_copy(update={"name": name, "sources": sources})
        pipeline = Growing(tmp_path, config.model_copy(update={"data": data}))
        pipeline.run("sources")
        return pipeline.run("ingest")

    first = grown("all", one)
    second = grown("all", one.model_copy(update={"weight": 3.0}), SourceConfig(name="hums", uri=str(more)))
    other = grown("", SourceConfig(name="hums", uri=str(more)), one)

    assert (first.counts["version"], second.counts["version"], other.counts["version"]) == (1, 2, 1)
    assert second.counts["new_clips"] == 1 and other.counts["new_clips"] == other.counts["clips"]
    rows = pq.read_table(path_of(second.outputs["dataset"].uri) / "index.parquet").to_pylist()
    assert {row["source"]: row["weight"] for row in rows} == {"mine": 3.0, "hums": 1.0}
