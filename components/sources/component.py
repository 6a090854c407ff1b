"""Find the configured audio sources, or make the demo audio when none is configured."""

from kfp import dsl

from components.image import image


@dsl.component(base_image=image("pipeline"), install_kfp_package=False)
def sources(
    config: str,
    store: str,
    tracking: str,
    ray_address: str,
    progress: str,
    sources: dsl.Output[dsl.Dataset],
) -> None:
    """Find the configured audio sources, or make the demo audio when none is configured.

    Args:
        config: the whole configuration tree, as JSON.
        store: URI of the store's root.
        tracking: JSON of the MLflow server and parent run to report to; empty for none.
        ray_address: address of the Ray jobs API.
        progress: local path of the run's progress events; empty for none.
        sources: the stage's folder in the store.
    """
    from components.launch import artifact_metadata, launch

    record = launch(
        "sources",
        config=config,
        store_uri=store,
        tracking=tracking,
        ray_address=ray_address,
        progress=progress,
        inputs={},
    )
    sources.uri = record.folder
    sources.metadata.update(artifact_metadata(record))
