"""Package the generator, register it and move the champion alias to it."""

from kfp import dsl

from components.image import WORKER


@dsl.component(base_image=WORKER, install_kfp_package=False)
def promote(
    config: str,
    store: str,
    tracking: str,
    ray_address: str,
    progress: str,
    verdict: dsl.Input[dsl.Artifact],
    dataset: dsl.Input[dsl.Dataset],
    base: dsl.Input[dsl.Model],
    generator: dsl.Input[dsl.Model],
    latents: dsl.Input[dsl.Dataset],
    scores: dsl.Input[dsl.Metrics],
    package: dsl.Output[dsl.Model],
) -> None:
    """Package the generator, register it and move the champion alias to it.

    Args:
        config: the whole configuration tree, as JSON.
        store: URI of the store's root.
        tracking: JSON of the MLflow server and parent run to report to; empty for none.
        ray_address: address of the Ray jobs API.
        progress: local path of the run's progress events; empty for none.
        verdict: stage folder of `gate`.
        dataset: stage folder of `ingest`.
        base: stage folder of `pretrain`.
        generator: stage folder of `posttrain`.
        latents: stage folder of `encode`.
        scores: stage folder of `evaluate`.
        package: the stage's folder in the store.
    """
    from components.launch import artifact_metadata, launch

    record = launch(
        "promote",
        config=config,
        store_uri=store,
        tracking=tracking,
        ray_address=ray_address,
        progress=progress,
        inputs={
            "gate": verdict.uri,
            "ingest": dataset.uri,
            "pretrain": base.uri,
            "posttrain": generator.uri,
            "encode": latents.uri,
            "evaluate": scores.uri,
        },
    )
    package.uri = record.folder
    package.metadata.update(artifact_metadata(record))
