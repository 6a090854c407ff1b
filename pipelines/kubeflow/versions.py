"""Versions of the pipeline in a Kubeflow: upload one, find one, read what it would run."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kfp_server_api as api

from pipelines.dag import DESCRIPTION, PIPELINE
from pipelines.kubeflow.client import Kubeflow, Missing, named
from pipelines.kubeflow.spec import Spec
from pipelines.kubeflow.version import Version
from pipelines.schedules.model import LATEST
from sonarc.contracts.errors import ConfigError


@dataclass(frozen=True)
class Deployed:
    """A version that a Kubeflow holds.

    Attributes:
        pipeline_id, version_id: Kubeflow's ids.
        name: as `Version.name` made it.
        spec: what it would run.
    """

    pipeline_id: str
    version_id: str
    name: str
    spec: Spec


def upload(kubeflow: Kubeflow, text: str, version: Version) -> tuple[Deployed, bool]:
    """Put a compiled pipeline into Kubeflow under its version's name; what is there already stays.

    Returns:
        The version, and whether it is new.
    """
    pipeline_id = _pipeline_id(kubeflow) or kubeflow.make(
        lambda: _create_pipeline(kubeflow), lambda: _pipeline_id(kubeflow)
    )
    found = _find(kubeflow, pipeline_id, version.name)
    if found is not None:
        return found, False
    about = json.dumps({"git": version.git, "spec_sha256": version.spec_sha256})

    def create() -> Deployed | None:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / f"{PIPELINE}.yaml"
            file.write_text(text, encoding="utf-8")
            made = kubeflow.ask(
                kubeflow.uploads.upload_pipeline_version,
                str(file),
                name=version.name,
                display_name=version.name,
                pipelineid=pipeline_id,
                description=about,
            )
        return _deployed(made)

    made = kubeflow.make(create, lambda: _find(kubeflow, pipeline_id, version.name))
    assert made is not None
    return made, True


def deployed(kubeflow: Kubeflow, name: str = LATEST) -> Deployed:
    """A version by its name, or the latest.

    Raises:
        ConfigError: there is none.
    """
    pipeline_id = _pipeline_id(kubeflow)
    if pipeline_id is not None:
        found = _latest(kubeflow, pipeline_id) if name == LATEST else _find(kubeflow, pipeline_id, name)
        if found is not None:
            return found
    which = "no version of the pipeline" if name == LATEST else f"no version {name!r}"
    raise ConfigError(f"Kubeflow at {kubeflow.config.host} has {which}.", "`sonarc pipeline upload` puts one there.")


def version_names(kubeflow: Kubeflow) -> dict[str, str]:
    """Id → name of all versions."""
    pipeline_id = _pipeline_id(kubeflow)
    if pipeline_id is None:
        return {}
    listed = kubeflow.every(
        kubeflow.pipelines.pipeline_service_list_pipeline_versions, "pipeline_versions", pipeline_id
    )
    return {entry.pipeline_version_id: entry.display_name or entry.name for entry in listed}


def _pipeline_id(kubeflow: Kubeflow) -> str | None:
    where = {"namespace": kubeflow.config.namespace} if kubeflow.config.namespace else {}
    try:
        found = kubeflow.ask(kubeflow.pipelines.pipeline_service_get_pipeline_by_name, PIPELINE, **where)
    except Missing:
        return None
    return str(found.pipeline_id)


def _create_pipeline(kubeflow: Kubeflow) -> str:
    where = {"namespace": kubeflow.config.namespace} if kubeflow.config.namespace else {}
    body = api.V2beta1Pipeline(name=PIPELINE, display_name=PIPELINE, description=DESCRIPTION, **where)
    return str(kubeflow.ask(kubeflow.pipelines.pipeline_service_create_pipeline, body).pipeline_id)


def _find(kubeflow: Kubeflow, pipeline_id: str, name: str) -> Deployed | None:
    listed = kubeflow.every(
        kubeflow.pipelines.pipeline_service_list_pipeline_versions,
        "pipeline_versions",
        pipeline_id,
        filter=named(name),
    )
    return next((_deployed(entry) for entry in listed), None)


def _latest(kubeflow: Kubeflow, pipeline_id: str) -> Deployed | None:
    """What a recurring run without a version takes: the one that was created last."""
    answer = kubeflow.ask(
        kubeflow.pipelines.pipeline_service_list_pipeline_versions,
        pipeline_id,
        sort_by="created_at desc",
        page_size=1,
    )
    return next((_deployed(entry) for entry in answer.pipeline_versions or ()), None)


def _deployed(entry: Any) -> Deployed:
    name = entry.display_name or entry.name
    spec = Spec.of_answer(entry.pipeline_spec or {}, f"The deployed version {name}")
    return Deployed(entry.pipeline_id, entry.pipeline_version_id, name, spec)
