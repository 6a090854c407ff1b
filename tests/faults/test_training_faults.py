"""Kills of everything that can be killed in a training: it goes on, and comes to what an undisturbed one comes to."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from ray_cluster import Cluster, Training, cluster, until
from tiny_latents import write_encode_stage

from sonarc.checkpoint import load_checkpoint
from sonarc.contracts.checkpoint import newest
from sonarc.contracts.config import SonarcConfig
from sonarc.contracts.presets import load
from sonarc.contracts.result import StageRequest, read_result

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

STEPS = 120


def config(checkpoint_every: int = 10) -> SonarcConfig:
    return load(
        "ci",
        [f"pretrain.steps={STEPS}", f"pretrain.checkpoint_every={checkpoint_every}", "pretrain.batch=16",
         "dit.width=128", "dit.depth=4", "compute.threads=1", "compute.max_failures=2"],
    )  # fmt: skip


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("cluster")) as found:
        yield found


@pytest.fixture(scope="module")
def encode(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_encode_stage(tmp_path_factory.mktemp("encode"), config())


def training(place: Path, encode: str, running: Cluster, checkpoint_every: int = 10) -> Training:
    request = StageRequest(
        stage="pretrain",
        store=place.as_uri(),
        config=config(checkpoint_every),
        inputs={"encode": encode},
        progress=str(place / "progress.jsonl"),
    )
    return Training(request, running)


@pytest.fixture(scope="module")
def undisturbed(encode: str, running: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Training:
    found = training(tmp_path_factory.mktemp("undisturbed"), encode, running)
    found.start()
    assert found.finish() == 0
    return found


def assert_the_same(disturbed: Training, undisturbed: Training) -> None:
    """Every loss that was reported, however often, and the weights to the last bit."""
    assert disturbed.losses() == undisturbed.losses()
    weights = [
        load_checkpoint(read_result(t.request.folder()).outputs["base"].uri).model for t in (disturbed, undisturbed)
    ]
    for name, weight in weights[0].items():
        assert torch.equal(weight, weights[1][name]), name


def worker(running: Cluster) -> None:
    found = running.processes("ray::RayTrainWorker") or running.processes("RayTrainWorker")
    assert found, "no training worker was found"
    for process in found:
        process.kill()


@pytest.mark.parametrize("checkpoint_every", [10, 1], ids=["in a step", "in a checkpoint"])
def test_a_killed_worker_is_started_again(
    encode: str, running: Cluster, undisturbed: Training, tmp_path: Path, checkpoint_every: int
) -> None:
    disturbed = training(tmp_path, encode, running, checkpoint_every)
    disturbed.start()
    disturbed.wait_for_step(30)
    worker(running)
    killed, before = time.monotonic(), max(disturbed.losses())
    disturbed.wait_for_step(before + 10)
    print(f"resumed within {time.monotonic() - killed:.1f} s")
    assert disturbed.finish() == 0
    assert_the_same(disturbed, undisturbed)


def test_a_killed_driver_is_started_again(encode: str, running: Cluster, undisturbed: Training, tmp_path: Path) -> None:
    disturbed = training(tmp_path, encode, running)
    disturbed.start()
    disturbed.wait_for_step(40)
    disturbed.kill()
    checkpoints = f"{disturbed.request.folder()}/checkpoints"
    found = newest(checkpoints)
    assert found is not None and 30 <= found[1].step < STEPS
    until(lambda: not running.processes("RayTrainWorker"), "the dead driver's worker to end")
    disturbed.start()
    assert disturbed.finish() == 0
    assert_the_same(disturbed, undisturbed)


def test_a_killed_raylet_takes_the_job_along_and_the_next_goes_on(
    encode: str, running: Cluster, undisturbed: Training, tmp_path: Path
) -> None:
    disturbed = training(tmp_path, encode, running)
    disturbed.start()
    disturbed.wait_for_step(40)
    for process in running.processes("raylet/raylet"):
        process.kill()
    assert disturbed.finish() != 0
    running.stop()
    running.start()
    disturbed.start()
    assert disturbed.finish() == 0
    assert_the_same(disturbed, undisturbed)
