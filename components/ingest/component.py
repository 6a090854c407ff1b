"""Decode, condition and split captioned audio into a WebDataset with index, quarantine and manifest."""

from kfp import dsl

from components.image import image


@dsl.component(base_image=image("pipeline"), install_kfp_package=False)
def ingest(
    config: str,
    store: str,
    tracking: str,
    ray_address: str,
    progress: str,
    sources: dsl.Input[dsl.Dataset],
    dataset: dsl.Output[dsl.Dataset],
) -> bool:
    """Decode, condition and split captioned audio into a WebDataset with index, quarantine and manifest.

    Args:
        config: the whole configuration tree, as JSON.
        store: URI of the store's root.
        tracking: JSON of the MLflow server and parent run to report to; empty for none.
        ray_address: address of the Ray jobs API.
        progress: local path of the run's progress events; empty for none.
        sources: stage folder of `sources`.
        dataset: the stage's folder in the store.

    Returns:
        Whether to go on: False where only what is new was asked for, and nothing is.
    """
    from components.launch import artifact_metadata, launch
    from sonarc.contracts.errors import NothingNew

    try:
        record = launch(
            "ingest",
            config=config,
            store_uri=store,
            tracking=tracking,
            ray_address=ray_address,
            progress=progress,
            inputs={"sources": sources.uri},
        )
    except NothingNew as found:
        print(found)
        return False
    dataset.uri = record.folder
    dataset.metadata.update(artifact_metadata(record))
    return True
