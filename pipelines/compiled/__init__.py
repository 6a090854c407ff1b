"""The compiled pipeline kept in git: a versioned DAG that needs no Python to submit."""

from __future__ import annotations

from pathlib import Path

import sonarc
from components.image import ROLES
from pipelines.kubeflow.profile import Profile
from pipelines.kubeflow.spec import compile_yaml

COMPILED = Path(__file__).parent / "sonarc.yaml"
PLAIN = Profile(images={name: f"sonarc/{name}" for name in ROLES})
"""The default profile, whatever the environment says of images."""


def compile_text() -> str:
    """The DAG as Kubeflow YAML, with the default profile and the package's version as the images' tag.

    A git version cannot stand in a file that git keeps.
    """
    return compile_yaml(PLAIN, sonarc.__version__)
