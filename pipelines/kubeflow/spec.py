"""A compiled pipeline as data: from YAML, from Kubeflow's answers, in one normal form that can be hashed."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipelines.kubeflow.profile import Profile
from sonarc.contracts.errors import ConfigError
from sonarc.contracts.hashing import sha256_json


@dataclass(frozen=True)
class Spec:
    """A compiled pipeline.

    Attributes:
        pipeline: Kubeflow's PipelineSpec: components, tasks, images, parameters.
        platform: its PlatformSpec: what only Kubernetes knows, such as secrets and node selectors.
    """

    pipeline: dict[str, Any]
    platform: dict[str, Any]

    @classmethod
    def of_yaml(cls, text: str, where: str) -> Spec:
        """From a compiled file, whose second document, if there is one, is the PlatformSpec.

        Raises:
            ConfigError: it is no compiled pipeline; `where` says which file.
        """
        try:
            documents = [document for document in yaml.safe_load_all(text) if document]
        except yaml.YAMLError as error:
            raise ConfigError(f"{where} is not valid YAML: {error}", "Compile it again.") from error
        return cls._of(documents[0] if documents else {}, documents[1] if len(documents) > 1 else {}, where)

    @classmethod
    def of_answer(cls, given: Mapping[str, Any], where: str) -> Spec:
        """From the `pipeline_spec` of a version, which is the PipelineSpec, or holds both under their names."""
        if "pipeline_spec" in given:
            return cls._of(given["pipeline_spec"], given.get("platform_spec", {}), where)
        return cls._of(given, {}, where)

    @classmethod
    def _of(cls, pipeline: Any, platform: Any, where: str) -> Spec:
        """Through Kubeflow's own messages and back: 1 and 1.0, or a default written out, are no difference."""
        from google.protobuf import json_format
        from kfp.pipeline_spec import pipeline_spec_pb2 as messages

        if not isinstance(pipeline, Mapping) or "pipelineInfo" not in pipeline:
            raise ConfigError(f"{where} is not a compiled pipeline.", "`sonarc pipeline compile` makes one.")
        try:
            read = json_format.ParseDict(dict(pipeline), messages.PipelineSpec(), ignore_unknown_fields=True)
            extra = json_format.ParseDict(dict(platform), messages.PlatformSpec(), ignore_unknown_fields=True)
        except json_format.ParseError as error:
            raise ConfigError(f"{where} is not a compiled pipeline: {error}", "Compile it again.") from error
        return cls(json_format.MessageToDict(read), json_format.MessageToDict(extra))

    @property
    def name(self) -> str:
        """The pipeline's name."""
        return str(self.pipeline["pipelineInfo"]["name"])

    def sha256(self) -> str:
        """Hash of what would run. The version of the compiler does not enter it."""
        pipeline = {key: value for key, value in self.pipeline.items() if key != "sdkVersion"}
        return sha256_json({"pipeline": pipeline, "platform": self.platform})


def compile_yaml(profile: Profile, git: str) -> str:
    """The DAG as a profile's cluster runs it; the same code, profile and git version always give the same text."""
    from kfp.compiler import Compiler

    from pipelines.dag import build
    from pipelines.kubeflow.outfit import outfit

    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "pipeline.yaml"
        Compiler().compile(build(profile.until, outfit(profile, git)), str(target))
        return target.read_text(encoding="utf-8")
