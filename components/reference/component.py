"""Pin the reference set that scores are measured against, or verify the one already pinned."""

from kfp import dsl

from components.image import image


@dsl.component(base_image=image("pipeline"), install_kfp_package=False)
def reference(
    config: str,
    store: str,
    tracking: str,
    ray_address: str,
    progress: str,
    dataset: dsl.Input[dsl.Dataset],
    reference: dsl.Output[dsl.Dataset],
) -> None:
    """Pin the reference set that scores are measured against, or verify the one already pinned.

    Args:
        config: the whole configuration tree, as JSON.
        store: URI of the store's root.
        tracking: JSON of the MLflow server and parent run to report to; empty for none.
        ray_address: address of the Ray jobs API.
        progress: local path of the run's progress events; empty for none.
        dataset: stage folder of `ingest`.
        reference: the stage's folder in the store.
    """
    from components.launch import artifact_metadata, launch

    record = launch(
        "reference",
        config=config,
        store_uri=store,
        tracking=tracking,
        ray_address=ray_address,
        progress=progress,
        inputs={"ingest": dataset.uri},
    )
    reference.uri = record.folder
    reference.metadata.update(artifact_metadata(record))
