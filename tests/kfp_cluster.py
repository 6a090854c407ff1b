"""A profile of the Kubeflow in memory, and small compiled pipelines to put there."""

from __future__ import annotations

from functools import cache
from typing import Any

from kfp_server import Kfp

from pipelines.kubeflow.client import Kubeflow
from pipelines.kubeflow.profile import Profile
from pipelines.kubeflow.spec import Spec, compile_yaml
from pipelines.kubeflow.version import Version
from pipelines.kubeflow.versions import Deployed, upload


def profile(kfp: Kfp, **given: Any) -> Profile:
    """Where the server is, and a store and a tracking server that nobody asks."""
    kubeflow = {"host": kfp.address, **given.pop("kubeflow", {})}
    settings = {"store": "s3://bucket/sonarc", "tracking": "http://mlflow:5000", **given}
    return Profile.model_validate({"kubeflow": kubeflow, **settings})


@cache
def compiled(git: str = "v1") -> str:
    """The pipeline up to its first stage: all there is to parameters and components, in little YAML."""
    return compile_yaml(Profile(until="sources", images={"pipeline": "example.com/pipeline"}), git)


@cache
def spec(git: str = "v1") -> Spec:
    """The same as data."""
    return Spec.of_yaml(compiled(git), git)


def uploaded(kfp: Kfp, git: str = "v1") -> Deployed:
    """A version that the server holds."""
    return upload(Kubeflow(profile(kfp).kubeflow), compiled(git), Version.of(spec(git), git))[0]
