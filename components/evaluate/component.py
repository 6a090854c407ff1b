"""Score the base and the generator on the pinned reference set."""

from kfp import dsl

from components.image import image


@dsl.component(base_image=image("pipeline"), install_kfp_package=False)
def evaluate(
    config: str,
    store: str,
    tracking: str,
    ray_address: str,
    progress: str,
    dataset: dsl.Input[dsl.Dataset],
    latents: dsl.Input[dsl.Dataset],
    reference: dsl.Input[dsl.Dataset],
    base: dsl.Input[dsl.Model],
    generator: dsl.Input[dsl.Model],
    scores: dsl.Output[dsl.Metrics],
) -> None:
    """Score the base and the generator on the pinned reference set.

    Args:
        config: the whole configuration tree, as JSON.
        store: URI of the store's root.
        tracking: JSON of the MLflow server and parent run to report to; empty for none.
        ray_address: address of the Ray jobs API.
        progress: local path of the run's progress events; empty for none.
        dataset: stage folder of `ingest`.
        latents: stage folder of `encode`.
        reference: stage folder of `reference`.
        base: stage folder of `pretrain`.
        generator: stage folder of `posttrain`.
        scores: the stage's folder in the store.
    """
    from components.launch import artifact_metadata, launch

    record = launch(
        "evaluate",
        config=config,
        store_uri=store,
        tracking=tracking,
        ray_address=ray_address,
        progress=progress,
        inputs={
            "ingest": dataset.uri,
            "encode": latents.uri,
            "reference": reference.uri,
            "pretrain": base.uri,
            "posttrain": generator.uri,
        },
    )
    scores.uri = record.folder
    scores.metadata.update(artifact_metadata(record))
