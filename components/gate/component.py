"""Decide by the configured rules whether the candidate may be promoted."""

from kfp import dsl

from components.image import image


@dsl.component(base_image=image("pipeline"), install_kfp_package=False)
def gate(
    config: str,
    store: str,
    tracking: str,
    ray_address: str,
    progress: str,
    scores: dsl.Input[dsl.Metrics],
    verdict: dsl.Output[dsl.Artifact],
) -> bool:
    """Decide by the configured rules whether the candidate may be promoted.

    Args:
        config: the whole configuration tree, as JSON.
        store: URI of the store's root.
        tracking: JSON of the MLflow server and parent run to report to; empty for none.
        ray_address: address of the Ray jobs API.
        progress: local path of the run's progress events; empty for none.
        scores: stage folder of `evaluate`.
        verdict: the stage's folder in the store.

    Returns:
        Whether every rule of the gate holds.
    """
    from components.launch import artifact_metadata, launch

    record = launch(
        "gate",
        config=config,
        store_uri=store,
        tracking=tracking,
        ray_address=ray_address,
        progress=progress,
        inputs={"evaluate": scores.uri},
    )
    verdict.uri = record.folder
    verdict.metadata.update(artifact_metadata(record))
    return record.result.metrics["passed"] == 1.0
