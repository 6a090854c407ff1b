"""End what the pipeline run left behind, and tell MLflow how it went."""

from kfp import dsl

from components.image import image


@dsl.component(base_image=image("pipeline"), install_kfp_package=False)
def finish(store: str, tracking: str, ray_address: str, run: str, status: dsl.PipelineTaskFinalStatus) -> None:
    """End what the pipeline run left behind, and tell MLflow how it went.

    The pipeline's exit handler: it runs whether the stages succeeded or not, and may run twice.

    Args:
        store: URI of the store's root.
        tracking: as `begin` was given it.
        ray_address: address of the Ray jobs API.
        run: id of the pipeline run.
        status: how the stages ended, from Kubeflow.
    """
    from components.run import end_run

    end_run(
        store_uri=store,
        tracking=tracking,
        ray_address=ray_address,
        run=run,
        state=status.state,
        message=status.error_message or "",
    )
