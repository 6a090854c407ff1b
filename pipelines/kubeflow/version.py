"""What a version of the pipeline is called: the git version of the code, and the hash of what was compiled from it."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import sonarc
from pipelines.kubeflow.spec import Spec

ROOT = Path(sonarc.__file__).resolve().parents[1]
HASH_DIGITS = 12


@dataclass(frozen=True)
class Version:
    """A version of the pipeline.

    Attributes:
        git: `git describe` of the code; the package's version where it is installed without git.
        spec_sha256: hash of the compiled pipeline.
    """

    git: str
    spec_sha256: str

    @classmethod
    def of(cls, spec: Spec, git: str) -> Version:
        """The version of a compiled pipeline."""
        return cls(git, spec.sha256())

    @property
    def name(self) -> str:
        """Its name in Kubeflow, also a Kubernetes name: letters, digits, dots and dashes."""
        plain = re.sub(r"[^a-z0-9.-]+", "-", self.git.lower()).strip("-.")
        return f"sonarc-{plain}-{self.spec_sha256[:HASH_DIGITS]}"


def git_version() -> str:
    """`git describe` of the code that runs, with `-dirty` where files differ from the commit; without git, the
    package's own version."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        described = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return sonarc.__version__
    if described.returncode != 0 or not (ROOT / ".git").exists():
        return sonarc.__version__
    return described.stdout.strip()
