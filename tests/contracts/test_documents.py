"""Manifests, progress and scores: a reader, a writer, and what they refuse."""

from __future__ import annotations

import copy
import inspect
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sonarc.contracts import checkpoint, errors, store
from sonarc.contracts.checkpoint import CheckpointManifest, folder_name, newest, read_manifest
from sonarc.contracts.dataset import (
    INDEX_SCHEMA,
    QUARANTINE_SCHEMA,
    DatasetManifest,
    LatentShard,
    LatentsManifest,
    Shard,
    SplitCount,
    clip_key,
    read_dataset,
    read_latents,
    split_of,
    write_dataset,
    write_latents,
)
from sonarc.contracts.errors import CheckpointError, DataError, SonarcError
from sonarc.contracts.package import PackageLineage, PackageManifest, read_package
from sonarc.contracts.progress import ProgressWriter, read_progress
from sonarc.contracts.scores import Difference, Score, ScoreSheet, best, read_scores, write_scores


def dataset(**changes: Any) -> DatasetManifest:
    settings: dict[str, Any] = {
        "version": 1,
        "config_sha256": "c",
        "sample_rate": 44_100,
        "channels": 2,
        "samples": 65_536,
        "clips": 3,
        "seconds": 4.5,
        "splits": {"train": SplitCount(clips=3, groups=2, seconds=4.5)},
        "shards": (Shard(name="train-000000.tar", split="train", clips=3, bytes=10, sha256="s"),),
        "index_sha256": "i",
        "quarantine_sha256": "q",
    }
    return DatasetManifest(**(settings | changes))


def latents(**changes: Any) -> LatentsManifest:
    shard = LatentShard(name="train-000000.tar", sha256="s", bytes=10, offsets={"a-000": 640})
    settings: dict[str, Any] = {
        "dataset_uri": "file:///d",
        "dataset_sha256": "d",
        "codec": "codec-v3",
        "encoder_sha256": "c",
        "channels": 64,
        "frames": 64,
        "hop": 1_024,
        "shards": (shard,),
    }
    return LatentsManifest(**(settings | changes))


@pytest.mark.parametrize(
    ("made", "write", "read", "name"),
    [
        (dataset(), write_dataset, read_dataset, "dataset.json"),
        (latents(), write_latents, read_latents, "latents.json"),
    ],
)
def test_manifests_survive_the_disk_and_nothing_else_passes(
    tmp_path: Path, made: Any, write: Callable[..., None], read: Callable[..., Any], name: str
) -> None:
    write(tmp_path.as_uri(), made)
    assert read(tmp_path.as_uri()) == made
    assert read(tmp_path.as_uri()).sha256() == made.sha256()
    document = json.loads((tmp_path / name).read_text(encoding="utf-8"))
    for change in ({"schema": "sonarc.other/1"}, {"unheard": 1}, {"shards": "none"}):
        (tmp_path / name).write_text(json.dumps(document | change), encoding="utf-8")
        with pytest.raises(DataError, match="schema"):
            read(tmp_path.as_uri())


def test_a_dataset_hash_covers_every_shard() -> None:
    shard = dataset().shards[0]
    changed = dataset(shards=(shard.model_copy(update={"sha256": "other"}),))
    assert changed.sha256() != dataset().sha256()


def test_latents_are_the_same_wherever_they_lie() -> None:
    assert latents(dataset_uri="s3://b/d", codec="s3://b/codec").sha256() == latents().sha256()
    assert latents(encoder_sha256="other").sha256() != latents().sha256()
    assert latents(dataset_sha256="other").sha256() != latents().sha256()


@pytest.mark.parametrize("name", ["../train-000000.tar", "train-0.tar", "TRAIN-000000.tar", "train-000000.tar.gz", "x"])
def test_a_shard_is_named_by_split_and_number(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        Shard(name=name, split="train", clips=1, bytes=1, sha256="s")


def test_index_and_quarantine_have_the_agreed_columns() -> None:
    assert INDEX_SCHEMA.names == [
        "key",
        "captions",
        "concept",
        "group",
        "source",
        "source_sha256",
        "start_s",
        "seconds",
        "frames",
        "author",
        "licence",
        "url",
        "loudness",
        "weight",
        "split",
        "shard",
        "offset",
        "bytes",
    ]
    assert QUARANTINE_SCHEMA.names == ["source", "path", "source_sha256", "reason", "detail"]


@given(group=st.text(), train=st.floats(0, 0.8), valid=st.floats(0, 0.2))
def test_a_group_never_moves_and_more_training_only_takes_from_the_rest(group: str, train: float, valid: float) -> None:
    assert split_of(group, train, valid) == split_of(group, train, valid)
    if split_of(group, train, valid) == "train":
        assert split_of(group, train + 0.1, valid) == "train"
    assert split_of(group, 1.0, 0.0) == "train"
    assert split_of(group, 0.0, 0.0) == "test"


def test_the_split_of_known_groups_is_fixed_for_ever() -> None:
    fixed = {
        "violin": "train",
        "kick": "train",
        "snare": "train",
        "bwv 66.6": "train",
        "": "test",
        "ü": "train",
        "cello": "train",
        "flute": "valid",
        "organ": "test",
    }
    assert {group: split_of(group) for group in fixed} == fixed


def test_splits_take_the_share_they_are_given() -> None:
    splits = [split_of(f"group {n}") for n in range(4_000)]
    assert abs(splits.count("train") / 4_000 - 0.7) < 0.03
    assert abs(splits.count("valid") / 4_000 - 0.1) < 0.02


@given(digest=st.text("0123456789abcdef", min_size=64, max_size=64), segment=st.integers(0, 999))
def test_a_clip_key_is_safe_in_a_tar_and_a_url(digest: str, segment: int) -> None:
    key = clip_key(digest, segment)
    assert len(key) == 24 and "." not in key and key.startswith(digest[:20])


def _checkpoint(folder: Path, step: int, attempt: int) -> CheckpointManifest:
    made = CheckpointManifest(
        kind="base", step=step, attempt=attempt, position=step * 8, config_sha256="c", files={"model.safetensors": "h"}
    )
    place = (folder / folder_name(step, attempt) / "checkpoint.json").as_uri()
    store.write_json(place, made.model_dump(mode="json", by_alias=True))
    return made


def test_the_newest_whole_checkpoint_is_found(tmp_path: Path) -> None:
    assert newest(tmp_path.as_uri()) is None
    for step, attempt in ((5, 0), (10, 0), (10, 2), (9, 7)):
        _checkpoint(tmp_path, step, attempt)
    (tmp_path / "step-40.attempt-0").mkdir()
    (tmp_path / "step-40.attempt-0" / "model.safetensors").write_bytes(b"half")
    (tmp_path / "step-30.attempt-0").mkdir()
    (tmp_path / "step-30.attempt-0" / "checkpoint.json").write_text('{"schema": "other"}', encoding="utf-8")
    (tmp_path / "step-20.attempt-0").mkdir()
    (tmp_path / "step-20.attempt-0" / "checkpoint.json").write_text("", encoding="utf-8")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "checkpoint.json").write_text("{}", encoding="utf-8")
    found = newest(tmp_path.as_uri())
    assert found is not None
    assert (found[0], found[1].attempt) == ((tmp_path / "step-10.attempt-2").as_uri(), 2)


def test_a_checkpoint_of_another_schema_is_refused_and_an_attempt_is_not_its_content(tmp_path: Path) -> None:
    first, second = _checkpoint(tmp_path, 3, 0), _checkpoint(tmp_path, 3, 1)
    assert first.sha256() == second.sha256()
    assert checkpoint.FOLDER.match(folder_name(3, 1))
    place = tmp_path / folder_name(3, 0) / "checkpoint.json"
    place.write_text('{"schema": "sonarc.checkpoint/9"}', encoding="utf-8")
    with pytest.raises(CheckpointError, match="schema"):
        read_manifest((tmp_path / folder_name(3, 0)).as_uri())


def _package(folder: Path, *names: str) -> PackageManifest:
    known = {
        "base_uri": "file:///b", "base_sha256": "b", "generator_sha256": "g", "codec_sha256": "c",
        "dataset_sha256": "d", "dataset_version": 1, "text_encoder": "minilm:h",
    }  # fmt: skip
    lineage = PackageLineage.model_validate(known)
    made = PackageManifest(kind="generator", files=dict.fromkeys(names, "h"), lineage=lineage, config_sha256="c")
    for name in names:
        store.write_bytes(store.join(folder.as_uri(), name), b"x")
    store.write_json(store.join(folder.as_uri(), "package.json"), made.model_dump(mode="json", by_alias=True))
    return made


def test_a_package_is_exactly_what_its_manifest_names(tmp_path: Path) -> None:
    made = _package(tmp_path, "generator.safetensors", "config.json", "codec/model.safetensors")
    assert read_package(tmp_path.as_uri()) == made
    (tmp_path / "extra.json").write_text("{}", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"extra\.json"):
        read_package(tmp_path.as_uri())
    (tmp_path / "extra.json").unlink()
    (tmp_path / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config\.json"):
        read_package(tmp_path.as_uri())


@pytest.mark.parametrize("name", ["model.pkl", "model.pt", "run.py", "model.bin", "weights.npy", "safetensors"])
def test_a_package_holds_only_safe_kinds_of_file(tmp_path: Path, name: str) -> None:
    _package(tmp_path, "generator.safetensors", name)
    with pytest.raises(CheckpointError, match="only safetensors"):
        read_package(tmp_path.as_uri())


def test_progress_is_read_as_it_grows(tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"
    assert read_progress(path) == ([], 0)
    report = ProgressWriter(path, "encode", every=0)
    report(1, 4, unit="clips")
    events, offset = read_progress(path)
    assert [(event.stage, event.done, event.total, event.unit) for event in events] == [("encode", 1, 4, "clips")]
    with path.open("ab") as file:
        file.write(b"not json\n\xff\xfe\n" + b'{"half":')
    report_later = read_progress(path, offset)
    assert report_later[0] == []
    assert read_progress(path, report_later[1])[1] == report_later[1], "a line still being written is waited for"


def test_progress_is_throttled_but_never_loses_the_end(tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"
    report = ProgressWriter(path, "encode", every=60)
    for done in range(101):
        report(done, 100)
    report(50, 100, message="said")
    events, _ = read_progress(path)
    assert [event.done for event in events] == [0, 100, 50]
    assert events[-1].message == "said"


def test_lines_of_several_processes_never_interleave(tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"
    program = (
        "import sys; from pathlib import Path; from sonarc.contracts.progress import ProgressWriter\n"
        "report = ProgressWriter(Path(sys.argv[1]), sys.argv[2], every=0)\n"
        "for n in range(200): report(n, 200, message='m' * 500)\n"
    )
    workers = [subprocess.Popen([sys.executable, "-c", program, str(path), f"w{n}"]) for n in range(2)]
    assert [worker.wait(60) for worker in workers] == [0, 0]
    events, offset = read_progress(path)
    assert offset == path.stat().st_size
    assert len(events) == 400
    assert [event.done for event in events if event.stage == "w1"] == list(range(200))


def score(**changes: Any) -> Score:
    settings = {"metric": "fd_yamnet", "model": "generator", "steps": 4, "value": 30.0, "n": 240, "n_real": 300}
    return Score(**(settings | {"embedder_sha256": "e", "reference_sha256": "r"} | changes))


@pytest.mark.parametrize(
    ("change", "comparable"),
    [
        ({"model": "base", "cfg": 2.5, "value": 60.0}, True),
        ({"metric": "fd_aisfx"}, False),
        ({"embedder_sha256": "other"}, False),
        ({"reference_sha256": "other"}, False),
        ({"n": 100}, False),
        ({"n_real": 100}, False),
    ],
)
def test_scores_compare_only_when_measured_with_the_same_things(change: dict[str, Any], comparable: bool) -> None:
    assert score().comparable(score(**change)) is comparable
    assert score(**change).comparable(score()) is comparable


def test_the_best_score_is_finite_and_by_its_own_sense() -> None:
    assert best([]) is None
    assert best([score(value=float("nan"))]) is None
    assert best([score(value=float("nan")), score(value=3.0), score(value=2.0)]) == score(value=2.0)
    high = [score(metric="recall", better="higher", value=v) for v in (0.1, 0.9)]
    assert best(high) == high[1]
    sheet = ScoreSheet(scores=(score(cfg=1.0, value=9.0), score(cfg=2.0, value=5.0)))
    assert sheet.get("fd_yamnet", "generator", 4) == score(cfg=2.0, value=5.0)
    assert sheet.get("fd_yamnet", "generator", 4, cfg=1.0) == score(cfg=1.0, value=9.0)
    assert sheet.get("fd_yamnet", "generator", 8) is None


def test_a_score_sheet_survives_the_disk_and_nan_does_not(tmp_path: Path) -> None:
    uri = (tmp_path / "scores.json").as_uri()
    difference = Difference(metric="fd_yamnet", a="generator@4", b="base@4", value=-3.0, low=-4.0, high=-2.0, n=240)
    sheet = ScoreSheet(scores=(score(),), differences=(difference,))
    assert write_scores(uri, sheet) == write_scores(uri, sheet)
    assert read_scores(uri) == sheet
    with pytest.raises(ValueError, match="JSON"):
        write_scores(uri, ScoreSheet(scores=(score(value=float("nan")),)))
    assert read_scores(uri) == sheet
    store.write_json(uri, {"schema": "sonarc.scores/1", "scores": [{"metric": "x"}]})
    with pytest.raises(DataError, match="schema"):
        read_scores(uri)


ERRORS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, SonarcError)]


@pytest.mark.parametrize("kind", ERRORS)
def test_errors_keep_message_and_hint_between_processes(kind: type[SonarcError]) -> None:
    again = copy.copy(kind("what", "do this"))  # by the same protocol that carries it between processes
    assert (type(again), again.message, again.hint, str(again)) == (kind, "what", "do this", "what do this")


def test_every_error_has_its_own_code_and_exit_code() -> None:
    assert len({kind.code for kind in ERRORS}) == len(ERRORS)
    assert len({kind.exit_code for kind in ERRORS}) == len(ERRORS)
    assert all(0 < kind.exit_code < 126 for kind in ERRORS)
