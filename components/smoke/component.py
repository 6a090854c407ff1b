"""Send one real request to the endpoint and check what comes back."""

from kfp import dsl

from components.image import image


@dsl.component(base_image=image("serve"), install_kfp_package=False)
def smoke(
    config: str,
    store: str,
    tracking: str,
    ray_address: str,
    progress: str,
    endpoint: dsl.Input[dsl.Artifact],
    answer: dsl.Output[dsl.Artifact],
) -> None:
    """Send one real request to the endpoint and check what comes back.

    Args:
        config: the whole configuration tree, as JSON.
        store: URI of the store's root.
        tracking: JSON of the MLflow server and parent run to report to; empty for none.
        ray_address: address of the Ray jobs API.
        progress: local path of the run's progress events; empty for none.
        endpoint: stage folder of `deploy`.
        answer: the stage's folder in the store.
    """
    from components.launch import artifact_metadata, launch

    record = launch(
        "smoke",
        config=config,
        store_uri=store,
        tracking=tracking,
        ray_address=ray_address,
        progress=progress,
        inputs={"deploy": endpoint.uri},
    )
    answer.uri = record.folder
    answer.metadata.update(artifact_metadata(record))
