"""ARC post-training: the base becomes a few-step generator, over any number of workers."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import ValidationError

from ray_jobs.job import Outcome, StageContext, main
from ray_jobs.training import Worker, check_workers, train
from sonarc.contracts import store
from sonarc.contracts.checkpoint import read_manifest
from sonarc.contracts.config import ArcConfig
from sonarc.contracts.dataset import read_latents
from sonarc.contracts.errors import ConfigError, DataError
from sonarc.contracts.hashing import sha256_json
from sonarc.contracts.result import Artifact
from sonarc.contracts.tuning import LossWeights, TunedWeights


@dataclass(frozen=True)
class Settings:
    """What the workers are told."""

    arc: ArcConfig
    base_uri: str
    dataset_uri: str
    latents_uri: str
    lineage: dict[str, str]

    def sha256(self) -> str:
        """Hash of what shapes the training: a resume under another is refused."""
        lineage = {name: value for name, value in self.lineage.items() if name != "base_uri"}
        return sha256_json({"arc": self.arc.model_dump(mode="json"), "lineage": lineage})


def loop(worker: Worker, settings: Settings) -> None:
    """One worker's part of the training, from the newest checkpoint to the last step."""
    from sonarc.arc import ArcData, ArcTrainer, Health
    from sonarc.arc.alignment import ClapAlignment
    from sonarc.checkpoint import load_dit
    from sonarc.data import load_latents
    from sonarc.text import load_text_encoder

    arc, shaping = settings.arc, settings.sha256()
    base, bound = load_dit(settings.base_uri)
    latents = load_latents(settings.latents_uri, settings.dataset_uri, "train")
    encoder = load_text_encoder(bound.text)
    data = ArcData(latents, encoder, arc, patch=bound.dit.patch)
    alignment = ClapAlignment.load(bound.codec.uri, arc.clap, encoder) if arc.clap_weight else None
    trainer = ArcTrainer(base.to(worker.device), arc, seed=arc.seed, wrap=worker.wrap, alignment=alignment)
    start = 0
    if (saved := worker.resume(shaping)) is not None:
        trainer.load(saved.model, saved.state)
        start = saved.manifest.step
    part, health = worker.part(arc.batch), Health()
    for step in range(start, arc.steps):
        (batch_d, draws_d), (batch_g, draws_g) = (data(step, side, part) for side in ("discriminator", "generator"))
        metrics = trainer.step(step, (batch_d, batch_g), (draws_d, draws_g))
        worker.report(step + 1, arc.steps, metrics, " ".join(health.update(metrics)))
        if (step + 1) % arc.checkpoint_every == 0 or step + 1 == arc.steps:
            worker.save(
                kind="generator",
                step=step + 1,
                position=2 * (step + 1) * arc.batch,
                model=trainer.ema.state_dict(),
                state=trainer.state(),
                config=bound.model_dump(mode="json"),
                config_sha256=shaping,
                lineage=settings.lineage,
            )


def run(context: StageContext) -> Outcome:
    """Post-train the base with the tuned weights and hand on the generator's last checkpoint."""
    weights = read_weights(context.input("tune", "weights").uri)
    arc = context.config.arc.model_copy(update=weights.model_dump())
    check_workers(context, arc.batch)
    base, latents = context.input("pretrain", "base"), context.input("encode", "latents")
    manifest, origin = read_latents(latents.uri), read_manifest(base.uri)
    if origin.lineage.get("codec_sha256") not in (None, manifest.codec_sha256):
        raise ConfigError(
            f"The base was trained on latents of the codec {origin.lineage['codec_sha256'][:12]}…, "
            f"these are of {manifest.codec_sha256[:12]}….",
            "Encode with the base's codec, or pre-train again.",
        )
    lineage = {
        **origin.lineage,
        "base_uri": base.uri,
        "base_sha256": base.sha256,
        "dataset_sha256": manifest.dataset_sha256,
        "codec_sha256": manifest.codec_sha256,
        "latents_sha256": latents.sha256,
    }
    settings = Settings(arc, base.uri, manifest.dataset_uri, latents.uri, lineage)
    uri, last = train(context, loop, settings)
    return Outcome(
        {"generator": Artifact(uri=uri, sha256=last.sha256())},
        metrics={f"arc_{name}": value for name, value in weights.model_dump().items()},
        counts={"steps": last.step, "clips_drawn": last.position},
    )


def read_weights(uri: str) -> LossWeights:
    """The weights that tuning chose.

    Raises:
        StoreError: there is no such file. DataError: it does not follow its schema.
    """
    try:
        tuned = TunedWeights.model_validate(store.read_json(uri))
    except ValidationError as error:
        raise DataError(f"{uri} does not follow its schema: {error}.", "Run the tune stage again.") from error
    return LossWeights(contrastive_weight=tuned.contrastive_weight, penalty_weight=tuned.penalty_weight)


if __name__ == "__main__":
    main("posttrain")
