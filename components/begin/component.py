"""Open the pipeline run's parent run in MLflow, unless whoever started the pipeline has opened one."""

from kfp import dsl

from components.image import image


@dsl.component(base_image=image("pipeline"), install_kfp_package=False)
def begin(config: str, store: str, tracking: str, run: str) -> str:
    """Open the pipeline run's parent run in MLflow, unless whoever started the pipeline has opened one.

    Args:
        config: the whole configuration tree, as JSON.
        store: URI of the store's root.
        tracking: an MLflow server's address; or JSON of a parent run that is open; empty for none.
        run: id of the pipeline run: a second try finds the run that the first one opened.

    Returns:
        JSON of the MLflow server and parent run to report to; empty for none.
    """
    from components.run import begin_parent

    return begin_parent(config=config, store_uri=store, tracking=tracking, run=run)
