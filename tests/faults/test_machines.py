"""Machines that come, that are taken away and that are lost, amid a training over several of them."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from namespaces import Hosts, hosts, missing
from ray_cluster import Cluster, Training, kill_node, until
from tiny_latents import write_encode_stage

from ray_jobs.worker import REPORT_EVERY
from sonarc.checkpoint import load_checkpoint
from sonarc.contracts.checkpoint import FOLDER
from sonarc.contracts.config import SonarcConfig
from sonarc.contracts.presets import load
from sonarc.contracts.progress import read_progress
from sonarc.contracts.result import StageRequest, read_result

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

STEPS = 400
"""So many that a machine that comes still finds a training to join: ten steps take a second."""


def config(*overrides: str) -> SonarcConfig:
    return load(
        "ci",
        [f"pretrain.steps={STEPS}", "pretrain.checkpoint_every=20", "pretrain.batch=16", "dit.width=128", "dit.depth=4",
         "compute.threads=1", "compute.resize_seconds=5", *overrides],
    )  # fmt: skip


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Hosts]:
    """A head that computes nothing, and room for four more hosts."""
    if reason := missing():
        pytest.skip(reason)
    with hosts(tmp_path, 5, cpus=0) as found:
        yield found


@pytest.fixture(scope="module")
def encode(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_encode_stage(tmp_path_factory.mktemp("encode"), config())


def training(place: Path, encode: str, running: Cluster, *overrides: str) -> Training:
    request = StageRequest(
        stage="pretrain",
        store=place.as_uri(),
        config=config(*overrides),
        inputs={"encode": encode},
        progress=str(place / "progress.jsonl"),
    )
    return Training(request, running)


def weights(found: Training) -> dict[str, torch.Tensor]:
    return load_checkpoint(read_result(found.request.folder()).outputs["base"].uri).model


def saved_steps(found: Training) -> set[int]:
    folder = Path(found.request.folder().removeprefix("file://")) / "checkpoints"
    return {int(match[1]) for path in folder.glob("*") if (match := FOLDER.match(path.name))}


def both_losses(found: Training, expected: Training) -> list[tuple[float, float]]:
    """Losses at the steps that both tell of: progress leaves out a point that comes at once after another."""
    losses, others = found.losses(), expected.losses()
    shared = losses.keys() & others.keys()
    assert len(shared) >= 0.9 * STEPS / REPORT_EVERY and STEPS in shared
    return [(losses[step], others[step]) for step in shared]


def assert_close(found: Training, expected: Training) -> None:
    """The same batches by other numbers of workers: losses and weights but for bfloat16's rounding."""
    assert all(loss == pytest.approx(other, rel=0.02) for loss, other in both_losses(found, expected))
    for name, weight in weights(found).items():
        assert (weight - weights(expected)[name]).abs().max() < 0.02, name


def test_a_machine_taken_away_is_left_in_time_and_one_lost_is_done_without(
    running: Hosts, encode: str, tmp_path: Path
) -> None:
    nodes = [running.add_node() for _ in range(3)]
    undisturbed = training(tmp_path / "undisturbed", encode, running, "compute.workers=2", "compute.max_failures=0")
    undisturbed.start()
    assert undisturbed.finish() == 0

    # A notice: SIGTERM to a node, as Kubernetes gives it. No failure is allowed, so none is counted.
    preempted = training(tmp_path / "preempted", encode, running, "compute.workers=2", "compute.max_failures=0")
    preempted.start()
    preempted.wait_for_step(30)
    noticed, seen = time.monotonic(), set[int]()
    leaving = running.busy(nodes)[0]
    leaving.send_signal(signal.SIGTERM)

    def left() -> bool:
        seen.update(saved_steps(preempted))
        events, _ = read_progress(preempted.progress)
        return any("taken away" in event.message for event in events)

    until(left, "the workers to leave")
    print(f"left within {time.monotonic() - noticed:.1f} s of the notice, checkpoints {sorted(seen)}")
    before = max(preempted.losses())
    preempted.wait_for_step(before + 10)
    print(f"resumed within {time.monotonic() - noticed:.1f} s of the notice")
    assert preempted.finish() == 0
    assert all(loss == other for loss, other in both_losses(preempted, undisturbed))
    for name, weight in weights(preempted).items():
        assert torch.equal(weight, weights(undisturbed)[name]), name

    # A range of workers: one node is lost, later another comes.
    until(lambda: leaving.poll() is not None, "the first node to end")
    elastic = training(tmp_path / "elastic", encode, running, "compute.workers=[1,2]", "compute.max_failures=1")
    elastic.start()
    elastic.wait_for_step(20)
    until(lambda: len(running.workers()) == 2, "two workers")
    lost = time.monotonic()
    kill_node(running.busy(nodes)[0])
    before = max(elastic.losses())
    elastic.wait_for_step(before + 10)
    print(f"went on with fewer within {time.monotonic() - lost:.1f} s of the loss")
    assert len(running.workers()) == 1
    running.add_node()
    came = time.monotonic()
    until(lambda: len(running.workers()) == 2, "a second worker")
    print(f"grew within {time.monotonic() - came:.1f} s of the machine's coming")
    assert elastic.finish() == 0
    assert_close(elastic, undisturbed)
