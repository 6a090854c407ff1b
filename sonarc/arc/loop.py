"""The whole of a post-training, from the newest checkpoint to the last step, by one of any number of workers."""

from __future__ import annotations

from dataclasses import dataclass

from sonarc.arc.alignment import ClapAlignment
from sonarc.arc.batches import ArcData
from sonarc.arc.health import Health
from sonarc.arc.training import ArcTrainer
from sonarc.checkpoint import load_dit
from sonarc.contracts.config import ArcConfig
from sonarc.contracts.hashing import sha256_json
from sonarc.data import load_latents
from sonarc.text import load_text_encoder
from sonarc.training.worker import TrainingWorker


@dataclass(frozen=True)
class ArcJob:
    """What the workers are told.

    Attributes:
        base_uri: checkpoint of the base.
        lineage: hashes of base, dataset, latents and codec.
        recompute: whether both networks recompute activations in the backward pass.
        micro_batch: clips in memory at once on a worker.
    """

    arc: ArcConfig
    base_uri: str
    dataset_uri: str
    latents_uri: str
    lineage: dict[str, str]
    recompute: bool = False
    micro_batch: int | None = None

    def sha256(self) -> str:
        """Hash of what shapes the training: a resume under another is refused."""
        lineage = {name: value for name, value in self.lineage.items() if name != "base_uri"}
        return sha256_json({"arc": self.arc.model_dump(mode="json"), "lineage": lineage})


def posttrain(worker: TrainingWorker, job: ArcJob) -> None:
    """Make a few-step generator of the base; its checkpoints hold the averaged weights."""
    arc, shaping = job.arc, job.sha256()
    base, bound = load_dit(job.base_uri)
    base.recompute = job.recompute
    latents = load_latents(job.latents_uri, job.dataset_uri, "train")
    encoder = load_text_encoder(bound.text)
    data = ArcData(latents, encoder, arc, patch=bound.dit.patch)
    alignment = ClapAlignment.load(bound.codec.uri, arc.clap, encoder) if arc.clap_weight else None
    trainer = ArcTrainer(
        base,
        arc,
        seed=arc.seed,
        wrap=worker.wrap,
        alignment=alignment,
        workers=worker.workers,
        micro_batch=job.micro_batch,
    )
    start = 0
    if (saved := worker.resume(shaping)) is not None:
        trainer.load(saved.model, saved.state)
        start = saved.manifest.step
    part, health = worker.part(arc.batch), Health()
    for step in range(start, arc.steps):
        (batch_d, draws_d), (batch_g, draws_g) = (data(step, side, part) for side in ("discriminator", "generator"))
        metrics = trainer.step(step, (batch_d, batch_g), (draws_d, draws_g))
        worker.report(step + 1, arc.steps, metrics, " ".join(health.update(metrics)))
        if worker.due(step + 1, arc.steps, arc.checkpoint_every):
            worker.save(
                kind="generator",
                step=step + 1,
                position=2 * (step + 1) * arc.batch,
                model=trainer.ema.state_dict(),
                state=trainer.state(),
                config=bound.model_dump(mode="json"),
                config_sha256=shaping,
                lineage=job.lineage,
            )
        if worker.leaving:
            break
    worker.finish()
