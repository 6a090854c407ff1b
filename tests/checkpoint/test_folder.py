"""Checkpoint folders: whole or absent, verified, fenced."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sonarc.checkpoint import (
    claim_attempt,
    load_checkpoint,
    load_dit,
    load_tensors,
    pack_rng,
    prune_checkpoints,
    restore_rng,
    resume_point,
    save_checkpoint,
    sections,
)
from sonarc.contracts import store
from sonarc.contracts.checkpoint import newest, read_manifest
from sonarc.contracts.errors import CheckpointError, StoreError
from sonarc.contracts.presets import load
from sonarc.dit import DiT

SETTINGS = "a" * 64


def save(below: str, step: int, attempt: int = 1, value: float = 0.0, settings: str = SETTINGS) -> str:
    uri, _ = save_checkpoint(
        below,
        kind="base",
        step=step,
        attempt=attempt,
        position=step * 8,
        model={"weight": torch.full((3,), value)},
        config={"width": 3},
        config_sha256=settings,
        state={"model": {"weight": torch.full((3,), -value)}, "opt": {"weight/step": torch.tensor(float(step))}},
        lineage={"dataset_sha256": "b" * 64},
    )
    return uri


@pytest.fixture
def below(tmp_path: Path) -> str:
    return (tmp_path / "checkpoints").as_uri()


def path(uri: str) -> Path:
    place = store.local_path(uri)
    assert place is not None
    return place


def test_what_is_saved_is_read_back(below: str) -> None:
    uri = save(below, 5, value=2.0)
    assert uri.endswith("step-5.attempt-1")
    read = load_checkpoint(uri)
    assert (read.manifest.step, read.manifest.attempt, read.manifest.position) == (5, 1, 40)
    assert read.config == {"width": 3}
    assert torch.equal(read.model["weight"], torch.full((3,), 2.0))
    assert torch.equal(read.state["model"]["weight"], torch.full((3,), -2.0))
    assert torch.equal(read.state["opt"]["weight/step"], torch.tensor(5.0))
    assert load_checkpoint(uri, state=False).state == {}
    on_disk = {file.relative_to(path(uri)).as_posix() for file in path(uri).rglob("*") if file.is_file()}
    assert on_disk == {*read.manifest.files, "checkpoint.json"}


def test_a_changed_byte_is_found(below: str) -> None:
    for name in ("model.safetensors", "config.json", "state/opt.safetensors"):
        uri = save(below, 1)
        file = path(uri) / name
        file.write_bytes(file.read_bytes()[:-1] + b"!")
        with pytest.raises(CheckpointError, match=name.rsplit("/", 1)[-1].replace(".", r"\.")):
            load_checkpoint(uri)
        store.remove_folder(uri)


def test_a_missing_or_an_extra_file_is_found(below: str) -> None:
    uri = save(below, 1)
    (path(uri) / "extra.pt").write_bytes(b"pickle?")
    with pytest.raises(CheckpointError, match=r"extra\.pt"):
        load_checkpoint(uri)
    (path(uri) / "extra.pt").unlink()
    (path(uri) / "state" / "opt.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"opt\.safetensors"):
        load_checkpoint(uri)


def test_a_folder_without_manifest_does_not_exist(below: str) -> None:
    uri = save(below, 1)
    (path(uri) / "checkpoint.json").unlink()
    with pytest.raises(StoreError):
        load_checkpoint(uri)
    assert newest(below) is None


def test_resume_takes_the_newest_whole_one(below: str) -> None:
    save(below, 10)
    save(below, 20)
    save(below, 10, attempt=2)
    broken = save(below, 30, attempt=2)
    (path(broken) / "checkpoint.json").write_text("{")
    altered = save(below, 25, attempt=2)
    (path(altered) / "model.safetensors").write_bytes(b"short")
    found = resume_point(below, SETTINGS)
    assert found is not None
    assert found.uri.endswith("step-20.attempt-1")
    assert resume_point(store.join(below, "nothing"), SETTINGS) is None


def test_a_resume_under_other_settings_is_refused(below: str) -> None:
    save(below, 10)
    with pytest.raises(CheckpointError, match="other settings"):
        resume_point(below, "c" * 64)


def test_an_older_attempt_can_no_longer_write(below: str) -> None:
    first = claim_attempt(below)
    save(below, 1, attempt=first)
    second = claim_attempt(below)
    assert (first, second) == (1, 2)
    with pytest.raises(CheckpointError, match="attempt 2 has taken over"):
        save(below, 2, attempt=first)
    assert read_manifest(save(below, 2, attempt=second)).attempt == 2
    with pytest.raises(CheckpointError, match="exists already"):
        save(below, 2, attempt=second)


def test_pruning_keeps_the_newest_and_drops_the_half_written(below: str) -> None:
    kept = [save(below, 30), save(below, 20)]
    save(below, 10)
    half = save(below, 40)
    (path(half) / "checkpoint.json").unlink()
    prune_checkpoints(below, keep=2)
    left = {name.split("/", 1)[0] for name in store.list_files(below)}
    assert left == {uri.rsplit("/", 1)[-1] for uri in kept}


def test_nothing_is_pickled(below: str) -> None:
    uri = save(below, 1)
    assert {file.suffix for file in path(uri).rglob("*") if file.is_file()} == {".safetensors", ".json"}


def test_the_manifests_hash_covers_the_weights(below: str) -> None:
    one = read_manifest(save(below, 1, value=1.0)).sha256()
    again = read_manifest(save(below, 1, attempt=2, value=1.0)).sha256()
    other = read_manifest(save(below, 1, attempt=3, value=2.0)).sha256()
    assert one == again != other


def test_a_network_comes_back_from_its_checkpoint(below: str) -> None:
    config = load("ci")
    model = DiT(config.dit, config.text.width)
    with torch.no_grad():
        model.transformer.project_out.weight.normal_()
    arguments = {"kind": "base", "step": 1, "position": 8, "config_sha256": SETTINGS}
    described = sections(config).model_dump(mode="json")
    uri, _ = save_checkpoint(below, attempt=1, model=model.state_dict(), config=described, **arguments)
    loaded, bound = load_dit(uri)
    assert bound == sections(config)
    assert not loaded.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]), name

    weights = dict(model.state_dict())
    weights["surprise"] = weights.pop("preprocess_conv.weight")
    uri, _ = save_checkpoint(below, attempt=2, model=weights, config=described, **arguments)
    with pytest.raises(CheckpointError, match=r"missing preprocess_conv\.weight; unexpected surprise"):
        load_dit(uri)
    uri, _ = save_checkpoint(below, attempt=3, model=model.state_dict(), config={"dit": {}}, **arguments)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load_dit(uri)


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(CheckpointError, match=r"weight is \(2, 3\), not \(3, 2\)"):
        load_tensors(torch.nn.Linear(2, 3, bias=False), {"weight": torch.zeros(2, 3)})


def test_random_generators_come_back() -> None:
    generator = torch.Generator().manual_seed(3)
    packed = {name: tensor.clone() for name, tensor in pack_rng(generator).items()}
    expected = torch.rand(4, generator=generator)
    restore_rng(packed, generator)
    assert torch.equal(torch.rand(4, generator=generator), expected)
    assert packed["torch"].dtype == torch.uint8
    with pytest.raises(CheckpointError):
        restore_rng({}, generator)
    with pytest.raises(CheckpointError):
        restore_rng({"torch": torch.zeros(3, dtype=torch.uint8)}, generator)


def test_the_file_of_a_checkpoint_is_json_a_person_can_read(below: str) -> None:
    document = json.loads((path(save(below, 7)) / "checkpoint.json").read_text())
    assert document["schema"] == "sonarc.checkpoint/1"
    assert (document["step"], document["position"]) == (7, 56)
