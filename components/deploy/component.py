"""Serve the champion: keep the live server when it already has this package, else swap or start it."""

from kfp import dsl

from components.image import image


@dsl.component(base_image=image("serve"), install_kfp_package=False)
def deploy(
    config: str,
    store: str,
    tracking: str,
    ray_address: str,
    progress: str,
    package: dsl.Input[dsl.Model],
    endpoint: dsl.Output[dsl.Artifact],
) -> None:
    """Serve the champion: keep the live server when it already has this package, else swap or start it.

    Args:
        config: the whole configuration tree, as JSON.
        store: URI of the store's root.
        tracking: JSON of the MLflow server and parent run to report to; empty for none.
        ray_address: address of the Ray jobs API.
        progress: local path of the run's progress events; empty for none.
        package: stage folder of `promote`.
        endpoint: the stage's folder in the store.
    """
    from components.launch import artifact_metadata, launch

    record = launch(
        "deploy",
        config=config,
        store_uri=store,
        tracking=tracking,
        ray_address=ray_address,
        progress=progress,
        inputs={"promote": package.uri},
    )
    endpoint.uri = record.folder
    endpoint.metadata.update(artifact_metadata(record))
