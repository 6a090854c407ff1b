"""The whole of a pre-training, from the newest checkpoint to the last step, by one of any number of workers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from sonarc.checkpoint import sections
from sonarc.checkpoint.state import load_tensors
from sonarc.contracts.config import SonarcConfig
from sonarc.contracts.hashing import sha256_json
from sonarc.data import load_latents
from sonarc.dit import DiT
from sonarc.text import load_text_encoder
from sonarc.training.pretraining import PretrainBatches, Pretrainer
from sonarc.training.start import base_weights
from sonarc.training.worker import TrainingWorker


@dataclass(frozen=True)
class PretrainJob:
    """What the workers are told.

    Attributes:
        config: its sections audio, text, dit and pretrain; of compute what shapes a worker's memory.
        lineage: hashes of dataset, latents and codec, and of the base that it begins with.
        start: package of that base; empty: it begins from scratch.
    """

    config: SonarcConfig
    dataset_uri: str
    latents_uri: str
    lineage: dict[str, str]
    start: str = ""

    def sha256(self) -> str:
        """Hash of what shapes the training: a resume under another is refused."""
        tree = self.config.model_dump(mode="json")
        shaping: dict[str, Any] = {name: tree[name] for name in ("audio", "text", "dit", "pretrain")}
        return sha256_json({**shaping, "lineage": self.lineage})


def pretrain(worker: TrainingWorker, job: PretrainJob) -> None:
    """Train the base; its checkpoints hold the averaged weights."""
    config, shaping = job.config, job.sha256()
    encoder = load_text_encoder(config.text)
    latents = load_latents(job.latents_uri, job.dataset_uri, "train")
    batches = PretrainBatches(latents, encoder, config.pretrain, config.dit.patch)
    torch.manual_seed(config.pretrain.seed)
    model = DiT(config.dit, encoder.width, recompute=config.compute.recompute)
    if job.start:
        load_tensors(model, base_weights(job.start, f"{encoder.name}:{encoder.sha256}"), what="base")
    trainer = Pretrainer(
        model,
        config.pretrain,
        wrap=worker.wrap,
        workers=worker.workers,
        micro_batch=config.compute.micro_batch,
    )
    start = 0
    if (saved := worker.resume(shaping)) is not None:
        trainer.load(saved.model, saved.state)
        start = saved.manifest.step
    steps, part = config.pretrain.steps, worker.part(config.pretrain.batch)
    for step in range(start, steps):
        metrics = trainer.update(step, batches.at(step, part))
        worker.report(step + 1, steps, metrics)
        if worker.due(step + 1, steps, config.pretrain.checkpoint_every):
            worker.save(
                kind="base",
                step=step + 1,
                position=(step + 1) * config.pretrain.batch,
                model=trainer.ema.state_dict(),
                state=trainer.state(),
                config=sections(config).model_dump(mode="json"),
                config_sha256=shaping,
                lineage={**job.lineage, "text_encoder": f"{encoder.name}:{encoder.sha256}"},
            )
        if worker.leaving:
            break
    worker.finish()
