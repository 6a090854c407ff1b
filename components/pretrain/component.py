"""Train the rectified-flow base model from scratch."""

from kfp import dsl

from components.image import image


@dsl.component(base_image=image("pipeline"), install_kfp_package=False)
def pretrain(
    config: str,
    store: str,
    tracking: str,
    ray_address: str,
    progress: str,
    latents: dsl.Input[dsl.Dataset],
    base: dsl.Output[dsl.Model],
) -> None:
    """Train the rectified-flow base model from scratch.

    Args:
        config: the whole configuration tree, as JSON.
        store: URI of the store's root.
        tracking: JSON of the MLflow server and parent run to report to; empty for none.
        ray_address: address of the Ray jobs API.
        progress: local path of the run's progress events; empty for none.
        latents: stage folder of `encode`.
        base: the stage's folder in the store.
    """
    from components.launch import artifact_metadata, launch

    record = launch(
        "pretrain",
        config=config,
        store_uri=store,
        tracking=tracking,
        ray_address=ray_address,
        progress=progress,
        inputs={"encode": latents.uri},
    )
    base.uri = record.folder
    base.metadata.update(artifact_metadata(record))
