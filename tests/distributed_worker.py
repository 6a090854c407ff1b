"""One of several processes that share a small pre-training and a small post-training in float32.

    RANK=0 WORLD_SIZE=2 MASTER_ADDR=… MASTER_PORT=… python distributed_worker.py <folder> <name>:plain|sharded:<step>…

Each named training goes on from where it is, to a step. The last line of the output is JSON: the figures of each one's
last step, and how many numbers this process holds for its generator.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import torch
from arc_toy import ToyEncoder, toy_arc, toy_model, uneven_latents
from torch import distributed

import sonarc.arc.steps
import sonarc.training.pretraining
from ray_jobs.worker import Worker
from sonarc.arc import ArcData, ArcTrainer
from sonarc.checkpoint import claim_attempt, resume_point
from sonarc.checkpoint.sharded import is_sharded
from sonarc.contracts.config import PretrainConfig
from sonarc.training.pretraining import PretrainBatches, Pretrainer
from sonarc.training.saving import Saver

MICRO_BATCH = 2


def float32() -> None:
    """bfloat16 products would hide what float32's rounding shows."""
    for module in (sonarc.arc.steps, sonarc.training.pretraining):
        module.autocast = lambda _: torch.autocast("cpu", enabled=False)  # type: ignore[attr-defined]


def worker(place: str, sharded: bool) -> Worker:
    rank, workers = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    attempts = [claim_attempt(place) if rank == 0 else 0]
    if workers > 1:
        distributed.broadcast_object_list(attempts)
    mailbox: Any = None
    return Worker(rank, workers, torch.device("cpu"), place, Saver(place, attempts[0]), mailbox, sharded=sharded)


def save(mine: Worker, kind: Any, step: int, trainer: Pretrainer | ArcTrainer) -> None:
    mine.save(
        kind=kind, step=step, position=step, model=trainer.ema.state_dict(), state=trainer.state(), config={},
        config_sha256="x", lineage={},
    )  # fmt: skip
    mine.finish()


def resumed(mine: Worker, trainer: Pretrainer | ArcTrainer) -> int:
    saved = resume_point(mine.checkpoints, "x")
    if saved is None:
        return 0
    trainer.load(saved.model, saved.state)
    return saved.manifest.step


def pretrain(mine: Worker, until: int) -> dict[str, float]:
    config = PretrainConfig(batch=7, lr=1e-4, warmup_steps=1, steps=20)
    batches = PretrainBatches(uneven_latents(), ToyEncoder(), config, patch=1)
    trainer = Pretrainer(toy_model(), config, wrap=mine.wrap, workers=mine.workers, micro_batch=MICRO_BATCH)
    metrics: dict[str, float] = {}
    for step in range(resumed(mine, trainer), until):
        metrics = trainer.update(step, batches.at(step, mine.part(config.batch)))
    save(mine, "base", until, trainer)
    return metrics


def posttrain(mine: Worker, until: int) -> tuple[dict[str, float], int]:
    config = toy_arc(batch=7, generator_delay=0, penalty_weight=0.5, lr_generator=1e-5, lr_discriminator=1e-5)
    data, part = ArcData(uneven_latents(), ToyEncoder(), config, patch=1), mine.part(config.batch)
    trainer = ArcTrainer(toy_model(), config, wrap=mine.wrap, workers=mine.workers, micro_batch=MICRO_BATCH)
    metrics: dict[str, float] = {}
    for step in range(resumed(mine, trainer), until):
        (batch_d, draws_d), (batch_g, draws_g) = data(step, "discriminator", part), data(step, "generator", part)
        metrics = trainer.step(step, (batch_d, batch_g), (draws_d, draws_g))
    save(mine, "generator", until, trainer)
    held = sum((p.to_local() if is_sharded(p) else p).numel() for p in trainer.generator.parameters())  # type: ignore[attr-defined]
    return metrics, held


def train(folder: str, task: str) -> dict[str, Any]:
    """One named training, and what it says."""
    name, how, until = task.split(":")
    sharded = how == "sharded"
    found: dict[str, Any] = {"pretrain": pretrain(worker(f"{folder}/{name}/pretrain", sharded), int(until))}
    found["arc"], found["numbers"] = posttrain(worker(f"{folder}/{name}/arc", sharded), int(until))
    return found


def main() -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo")
    float32()
    found = {task: train(sys.argv[1], task) for task in sys.argv[2:]}
    distributed.destroy_process_group()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
