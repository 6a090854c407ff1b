"""ARC post-training: the base becomes a few-step generator, over any number of workers."""

from __future__ import annotations

from pydantic import ValidationError

from ray_jobs.job import Outcome, StageContext, main
from ray_jobs.training import check_workers, train
from sonarc.arc.loop import ArcJob, posttrain
from sonarc.contracts import store
from sonarc.contracts.checkpoint import read_manifest
from sonarc.contracts.dataset import read_latents
from sonarc.contracts.errors import ConfigError, DataError
from sonarc.contracts.result import Artifact
from sonarc.contracts.tuning import LossWeights, TunedWeights


def run(context: StageContext) -> Outcome:
    """Post-train the base with the tuned weights and hand on the generator's last checkpoint."""
    weights = read_weights(context.input("tune", "weights").uri)
    arc = weights.applied(context.config.arc)
    check_workers(context, arc.batch)
    base, latents = context.input("pretrain", "base"), context.input("encode", "latents")
    manifest, origin = read_latents(latents.uri), read_manifest(base.uri)
    if origin.lineage.get("encoder_sha256") not in (None, manifest.encoder_sha256):
        raise ConfigError(
            f"The base was trained on latents of the encoder {origin.lineage['encoder_sha256'][:12]}…, "
            f"these are of {manifest.encoder_sha256[:12]}….",
            "Encode with the base's codec, or pre-train again.",
        )
    lineage = {
        **origin.lineage,
        "base_uri": base.uri,
        "base_sha256": base.sha256,
        "dataset_sha256": manifest.dataset_sha256,
        "encoder_sha256": manifest.encoder_sha256,
        "latents_sha256": latents.sha256,
    }
    compute = context.config.compute
    job = ArcJob(
        arc,
        base.uri,
        manifest.dataset_uri,
        latents.uri,
        lineage,
        recompute=compute.recompute,
        micro_batch=compute.micro_batch,
    )
    uri, last = train(context, posttrain, job)
    return Outcome(
        {"generator": Artifact(uri=uri, sha256=last.sha256())},
        metrics={f"arc_{name}": value for name, value in weights.model_dump(exclude_none=True).items()},
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
    return tuned.weights


if __name__ == "__main__":
    main("posttrain")
