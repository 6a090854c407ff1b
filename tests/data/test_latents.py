from __future__ import annotations

import io
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sonarc.contracts.config import SourceConfig
from sonarc.contracts.dataset import DatasetManifest, LatentsManifest, write_latents
from sonarc.contracts.errors import DataError
from sonarc.contracts.hashing import sha256_bytes
from sonarc.data import load_latents, read_index
from sonarc.data.latents import write_latent_shard
from sonarc.data.shards import open_shard

Make = Callable[..., DatasetManifest]
CHANNELS, FRAMES, HOP = 4, 16, 1024


@pytest.fixture
def encoded(
    source: SourceConfig, make_dataset: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, str, dict[str, np.ndarray]]:
    """Latents of the small dataset: (latents, dataset, key → latent). The user's cache is an empty one."""
    monkeypatch.setenv("SONARC_CACHE", str(tmp_path / "cache"))
    dataset, latents = str(tmp_path / "dataset"), str(tmp_path / "latents")
    manifest = make_dataset(source, tmp_path / "dataset")
    random = np.random.default_rng(0)
    values, shards = {}, []
    rows = read_index(dataset).to_pylist()
    for shard in manifest.shards:
        keys = [row["key"] for row in rows if row["shard"] == shard.name]
        latents_NCT = random.standard_normal((len(keys), CHANNELS, FRAMES)).astype(np.float16)
        values |= dict(zip(keys, latents_NCT, strict=True))
        shards.append(write_latent_shard(latents, shard.name, keys, latents_NCT, tmp_path))
    described = LatentsManifest(
        dataset_uri=dataset,
        dataset_sha256=manifest.sha256(),
        codec="codec-v3",
        encoder_sha256="c" * 64,
        channels=CHANNELS,
        frames=FRAMES,
        hop=HOP,
        shards=tuple(shards),
    )
    write_latents(latents, described)
    return latents, dataset, values


def test_latents_come_back_with_what_the_index_says(encoded: tuple[str, str, dict[str, np.ndarray]]) -> None:
    latents, dataset, values = encoded
    for split in ("train", "test"):
        found = load_latents(latents, dataset, split, encoder_sha256="c" * 64)
        rows = read_index(dataset, split).to_pylist()
        assert found.keys == [row["key"] for row in rows]
        assert len(found) == len(rows) > 0
        for n, row in enumerate(rows):
            np.testing.assert_array_equal(found.latents_NCT[n], values[row["key"]])
            assert found.frames_N[n] == -(-row["frames"] // HOP) <= FRAMES
            assert found.captions[n] == row["captions"]
            assert found.concepts[n] == row["concept"]
        assert found.weights_N.tolist() == [2.0] * len(rows)


def test_members_are_plain_npy_arrays(encoded: tuple[str, str, dict[str, np.ndarray]]) -> None:
    latents, _, values = encoded
    data = Path(latents, "train-000000.tar").read_bytes()
    with open_shard(f"{latents}/train-000000.tar", sha256=sha256_bytes(data), size=len(data)) as reader:
        for member in reader:
            assert member.extension == "latent.npy"
            array = np.load(io.BytesIO(member.content), allow_pickle=False)
            np.testing.assert_array_equal(array, values[member.key])


def test_latents_of_another_dataset_or_codec_are_refused(
    encoded: tuple[str, str, dict[str, np.ndarray]], source: SourceConfig, make_dataset: Make, tmp_path: Path
) -> None:
    latents, dataset, _ = encoded
    with pytest.raises(DataError, match="made by the encoder"):
        load_latents(latents, dataset, "train", encoder_sha256="d" * 64)
    rows = Path(source.uri, "captions.jsonl").read_text().splitlines()
    Path(source.uri, "captions.jsonl").write_text("\n".join(rows[:-3]))
    make_dataset(source, tmp_path / "other")
    with pytest.raises(DataError, match="belong to the dataset"):
        load_latents(latents, str(tmp_path / "other"), "train")


def test_latents_that_are_not_finite_are_never_written(tmp_path: Path) -> None:
    latents_NCT = np.zeros((1, CHANNELS, FRAMES), np.float16)
    latents_NCT[0, 0, 0] = np.inf
    with pytest.raises(DataError, match="not finite"):
        write_latent_shard(str(tmp_path / "x"), "train-000000.tar", ["0" * 20 + "-000"], latents_NCT, tmp_path)
    assert not (tmp_path / "x").exists()


def test_gathered_latents_are_shared_refreshed_and_few(
    encoded: tuple[str, str, dict[str, np.ndarray]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    latents, dataset, values = encoded
    first = load_latents(latents, dataset, "train")
    (kept,) = (tmp_path / "cache" / "latents").iterdir()

    monkeypatch.setattr("sonarc.data.latents.open_shard", lambda *a, **k: pytest.fail("the shards were read again"))
    second = load_latents(latents, dataset, "train")
    assert isinstance(second.latents_NCT, np.memmap) and not second.latents_NCT.flags.writeable
    for key, latent_CT in zip(second.keys, second.latents_NCT, strict=True):
        np.testing.assert_array_equal(latent_CT, values[key])
    np.testing.assert_array_equal(first.latents_NCT, second.latents_NCT)

    monkeypatch.undo()
    monkeypatch.setenv("SONARC_CACHE", str(tmp_path / "cache"))
    whole = kept.read_bytes()
    kept.unlink()
    kept.write_bytes(whole[:-2])  # a file that was cut short is gathered again
    np.testing.assert_array_equal(load_latents(latents, dataset, "train").latents_NCT, first.latents_NCT)
    monkeypatch.setattr("sonarc.data.latents.KEPT", 1)
    load_latents(latents, dataset, "valid")
    assert len(list((tmp_path / "cache" / "latents").iterdir())) == 1


def test_a_damaged_shard_is_named_and_nothing_of_it_kept(
    encoded: tuple[str, str, dict[str, np.ndarray]], tmp_path: Path
) -> None:
    latents, dataset, _ = encoded
    shard = sorted(Path(latents).glob("train-*.tar"))[-1]
    content = bytearray(shard.read_bytes())
    content[700] ^= 1
    shard.write_bytes(content)
    with pytest.raises(DataError, match=shard.name):
        load_latents(latents, dataset, "train")
    assert not list((tmp_path / "cache" / "latents").iterdir())


def test_the_workers_of_a_machine_gather_once(
    encoded: tuple[str, str, dict[str, np.ndarray]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from sonarc.data import latents as module

    latents, dataset, _ = encoded
    gather, calls = module._gather, list[object]()

    def slowly(*args: Any) -> None:
        calls.append(args)
        time.sleep(0.3)
        gather(*args)

    monkeypatch.setattr(module, "_gather", slowly)
    with ThreadPoolExecutor(3) as workers:
        found = list(workers.map(lambda _: load_latents(latents, dataset, "train"), range(3)))
    assert len(calls) == 1
    for other in found[1:]:
        np.testing.assert_array_equal(found[0].latents_NCT, other.latents_NCT)
