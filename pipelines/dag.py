"""The pipeline as a Kubeflow DAG. The same definition runs in kfp's local runner and on a cluster.

Caching is ours (`sonarc.contracts.result`): kfp's is off on every task, because its key knows neither the
code nor the content behind a location, and a hit of its would leave no trace in MLflow.
"""

# No postponed annotations here: kfp reads the parameter types of the pipeline function.
from collections.abc import Callable
from typing import Any

from kfp import dsl

from components.begin.component import begin
from components.deploy.component import deploy
from components.encode.component import encode
from components.evaluate.component import evaluate
from components.finish.component import finish
from components.gate.component import gate
from components.ingest.component import ingest
from components.posttrain.component import posttrain
from components.pretrain.component import pretrain
from components.promote.component import promote
from components.reference.component import reference
from components.smoke.component import smoke
from components.sources.component import sources
from components.tune.component import tune
from sonarc.contracts.errors import ConfigError
from sonarc.contracts.stages import STAGES

PIPELINE = "sonarc"
DESCRIPTION = "Captioned audio in, a few-step text-to-audio generator behind an endpoint out."
DEFAULT_RAY_ADDRESS = "http://127.0.0.1:8265"
Outfit = Callable[[Any, str], None]
"""Gives a task, known by its component's name, what it needs on a cluster."""


def build(until: str = "smoke", outfit: Outfit = lambda task, name: None) -> Any:
    """The pipeline up to and including the stage `until`.

    Args:
        outfit: image, retries, resources and the like of each task on a cluster; the local runner needs none.

    Raises:
        ConfigError: there is no such stage.
    """
    if until not in STAGES:
        raise ConfigError(f"There is no stage {until!r}.", f"Use one of: {', '.join(STAGES)}.")
    wanted = _needed(until)

    def task(component: Callable[..., Any], **inputs: Any) -> Any:
        made = component(**inputs)
        made.set_caching_options(False)
        outfit(made, component.name)
        return made

    @dsl.pipeline(name=PIPELINE, description=DESCRIPTION)
    def sonarc_pipeline(
        config: str,
        store: str,
        tracking: str = "",
        ray_address: str = DEFAULT_RAY_ADDRESS,
        progress: str = "",
    ) -> None:
        run = dsl.PIPELINE_JOB_ID_PLACEHOLDER
        ending = task(finish, store=store, tracking=tracking, ray_address=ray_address, run=run)
        with dsl.ExitHandler(ending, name="run"):
            begun = task(begin, config=config, store=store, tracking=tracking, run=run)
            given = {
                "config": config,
                "store": store,
                "tracking": begun.output,
                "ray_address": ray_address,
                "progress": progress,
            }
            _stages(lambda component, **inputs: task(component, **given, **inputs), wanted)

    return sonarc_pipeline


def _stages(task: Callable[..., Any], wanted: set[str]) -> None:
    """The wanted stages, each fed by its upstream ones."""
    found = task(sources)
    if "ingest" not in wanted:
        return
    ingested = task(ingest, sources=found.outputs["sources"])
    if wanted <= {"sources", "ingest"}:
        return
    with dsl.If(ingested.outputs["Output"] == True, name="new"):  # noqa: E712  kfp reads the comparison
        _model(task, wanted, ingested.outputs["dataset"])


def _model(task: Callable[..., Any], wanted: set[str], dataset: Any) -> None:
    """The wanted stages that follow a dataset worth training on."""
    if "encode" in wanted:
        latents = task(encode, dataset=dataset).outputs["latents"]
    if "reference" in wanted:
        pinning = task(reference, dataset=dataset)
        pinned = pinning.outputs["reference"]
    if "pretrain" not in wanted:
        return
    training = task(pretrain, latents=latents)
    if "reference" in wanted:
        training.after(pinning)  # minutes: a reference that does not fit is found before the hours
    base = training.outputs["base"]
    if "tune" not in wanted:
        return
    weights = task(tune, dataset=dataset, latents=latents, reference=pinned, base=base).outputs["weights"]
    if "posttrain" not in wanted:
        return
    generator = task(posttrain, latents=latents, base=base, weights=weights).outputs["generator"]
    if "evaluate" not in wanted:
        return
    scores = task(evaluate, dataset=dataset, latents=latents, reference=pinned, base=base, generator=generator).outputs[
        "scores"
    ]
    if "gate" not in wanted:
        return
    gated = task(gate, scores=scores)
    if "promote" not in wanted:
        return
    with dsl.If(gated.outputs["Output"] == True, name="passed"):  # noqa: E712
        promoted = task(
            promote,
            verdict=gated.outputs["verdict"],
            dataset=dataset,
            latents=latents,
            base=base,
            generator=generator,
            scores=scores,
        )
        if "deploy" in wanted:
            deployed = task(deploy, package=promoted.outputs["package"])
            if "smoke" in wanted:
                task(smoke, endpoint=deployed.outputs["endpoint"])


def _needed(stage: str) -> set[str]:
    """The stage and everything upstream of it."""
    needed = {stage}
    for upstream in STAGES[stage].inputs:
        needed |= _needed(upstream)
    return needed
