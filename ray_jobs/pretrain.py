"""Pre-train the base: a rectified-flow DiT on the train split's latents, over any number of workers."""

from __future__ import annotations

from ray_jobs.job import Outcome, StageContext, main
from ray_jobs.training import check_workers, train
from sonarc.contracts.checkpoint import read_manifest
from sonarc.contracts.dataset import read_latents
from sonarc.contracts.errors import ConfigError
from sonarc.contracts.package import read_package
from sonarc.contracts.result import Artifact
from sonarc.training.loop import PretrainJob, pretrain


def run(context: StageContext) -> Outcome:
    """Train the base, from scratch or from the one that the request names, and hand on its last checkpoint."""
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
        "encoder_sha256": manifest.encoder_sha256,
        "latents_sha256": latents.sha256,
    }
    start = context.request.base
    if start:
        lineage["warm_start_sha256"] = read_package(start).sha256()
        context.run.log_params({"warm_start": start})
    uri, last = train(context, pretrain, PretrainJob(config, manifest.dataset_uri, latents.uri, lineage, start))
    return Outcome(
        {"base": Artifact(uri=uri, sha256=read_manifest(uri).sha256())},
        counts={"steps": last.step, "clips_drawn": last.position, **({"warm_start": 1} if start else {})},
    )


if __name__ == "__main__":
    main("pretrain")
