"""Pre-train the base: a rectified-flow DiT on the train split's latents, over any number of workers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ray_jobs.job import Outcome, StageContext, main
from ray_jobs.training import Worker, check_workers, train
from sonarc.contracts.checkpoint import read_manifest
from sonarc.contracts.config import SonarcConfig
from sonarc.contracts.dataset import read_latents
from sonarc.contracts.errors import ConfigError
from sonarc.contracts.hashing import sha256_json
from sonarc.contracts.result import Artifact


@dataclass(frozen=True)
class Settings:
    """What the workers are told."""

    config: SonarcConfig
    dataset_uri: str
    latents_uri: str
    lineage: dict[str, str]

    def sha256(self) -> str:
        """Hash of what shapes the training: a resume under another is refused."""
        tree = self.config.model_dump(mode="json")
        shaping: dict[str, Any] = {name: tree[name] for name in ("audio", "text", "dit", "pretrain")}
        return sha256_json({**shaping, "lineage": self.lineage})


def loop(worker: Worker, settings: Settings) -> None:
    """One worker's part of the training, from the newest checkpoint to the last step."""
    import torch

    from sonarc.checkpoint import sections
    from sonarc.data import load_latents
    from sonarc.dit import DiT
    from sonarc.text import load_text_encoder
    from sonarc.training.pretraining import PretrainBatches, Pretrainer

    config, shaping = settings.config, settings.sha256()
    encoder = load_text_encoder(config.text)
    latents = load_latents(settings.latents_uri, settings.dataset_uri, "train")
    batches = PretrainBatches(latents, encoder, config.pretrain, config.dit.patch)
    torch.manual_seed(config.pretrain.seed)
    model = DiT(config.dit, encoder.width).to(worker.device)
    trainer = Pretrainer(model, config.pretrain, wrap=worker.wrap, workers=worker.workers)
    start = 0
    if (saved := worker.resume(shaping)) is not None:
        trainer.load(saved.model, saved.state)
        start = saved.manifest.step
    steps, part = config.pretrain.steps, worker.part(config.pretrain.batch)
    for step in range(start, steps):
        metrics = trainer.update(step, batches.at(step, part))
        worker.report(step + 1, steps, metrics)
        if (step + 1) % config.pretrain.checkpoint_every == 0 or step + 1 == steps:
            worker.save(
                kind="base",
                step=step + 1,
                position=(step + 1) * config.pretrain.batch,
                model=trainer.ema.state_dict(),
                state=trainer.state(),
                config=sections(config).model_dump(mode="json"),
                config_sha256=shaping,
                lineage={**settings.lineage, "text_encoder": f"{encoder.name}:{encoder.sha256}"},
            )


def run(context: StageContext) -> Outcome:
    """Train the base and hand on its last checkpoint."""
    config = context.config
    check_workers(context, config.pretrain.batch)
    latents = context.input("encode", "latents")
    manifest = read_latents(latents.uri)
    if manifest.channels != config.dit.latent_channels:
        raise ConfigError(
            f"The latents have {manifest.channels} channels, dit.latent_channels says {config.dit.latent_channels}.",
            f"Set dit.latent_channels={manifest.channels}.",
        )
    if manifest.frames % config.dit.patch:
        raise ConfigError(
            f"Clips of {manifest.frames} latent frames do not divide into patches of {config.dit.patch}.",
            "Choose another dit.patch or audio.samples.",
        )
    lineage = {
        "dataset_sha256": manifest.dataset_sha256,
        "codec_sha256": manifest.codec_sha256,
        "latents_sha256": latents.sha256,
    }
    uri, last = train(context, loop, Settings(config, manifest.dataset_uri, latents.uri, lineage))
    return Outcome(
        {"base": Artifact(uri=uri, sha256=read_manifest(uri).sha256())},
        counts={"steps": last.step, "clips_drawn": last.position},
    )


if __name__ == "__main__":
    main("pretrain")
