"""Two processes over gloo: micro batches under DDP and FSDP train what one process trains."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from distributed_worker import train

import sonarc.arc.steps
import sonarc.training.pretraining
from sonarc.checkpoint import load_checkpoint
from sonarc.contracts.checkpoint import newest
from sonarc.contracts.processes import free_port

HERE = Path(__file__).parents[1]
OWN = ("std_ratio", "variety", "unmatched")
"""Figures of a worker's own clips, not of the whole batch."""


def pair(folder: Path, *tasks: str) -> list[dict[str, Any]]:
    """`distributed_worker.py` in two processes; what each of them says at its end."""
    environment = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{HERE}:{HERE.parent}"}
    started = [
        subprocess.Popen(
            [sys.executable, str(HERE / "distributed_worker.py"), folder.as_uri(), *tasks],
            env=environment | {"RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        told = [process.communicate(timeout=240)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    assert all(process.returncode == 0 for process in started)
    return [json.loads(text.splitlines()[-1]) for text in told]


def model(folder: Path, name: str, kind: str) -> dict[str, torch.Tensor]:
    found = newest((folder / name / kind).as_uri())
    assert found is not None and found[1].step == 3
    return load_checkpoint(found[0]).model


@pytest.mark.timeout(400)
def test_workers_train_what_one_process_trains_and_take_over_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (sonarc.arc.steps, sonarc.training.pretraining):
        monkeypatch.setattr(module, "autocast", lambda _: torch.autocast("cpu", enabled=False))
    folder = tmp_path.as_uri()
    alone = train(folder, "alone:plain:3")
    train(folder, "spread:plain:2")  # begun by one, ended by two
    tasks = ("plain:plain:3", "sharded:sharded:3", "spread:sharded:3", "joined:sharded:2")
    first, second = pair(tmp_path, *tasks)
    joined = train(folder, "joined:plain:3")  # begun by two, ended by one
    assert first["sharded:sharded:3"]["numbers"] + second["sharded:sharded:3"]["numbers"] == alone["numbers"]
    for kind in ("pretrain", "arc"):
        for name in set(alone[kind]) - set(OWN):
            expected = pytest.approx(alone[kind][name], rel=2e-3, abs=1e-5)
            assert joined[kind][name] == expected, (kind, name)
            for task in tasks[:3]:
                assert (first[task][kind][name] + second[task][kind][name]) / 2 == expected, (task, kind, name)
        weights = model(tmp_path, "alone", kind)
        for task in ("plain", "sharded", "spread", "joined"):
            for name, weight in model(tmp_path, task, kind).items():
                assert (weight - weights[name]).abs().max() < 2e-4, (task, kind, name)
