"""A compiled pipeline by what people call it: in git, of this code, a file, or uploaded."""

from __future__ import annotations

import subprocess
from pathlib import Path

from pipelines.compiled import COMPILED
from pipelines.kubeflow.client import Kubeflow
from pipelines.kubeflow.profile import Profile
from pipelines.kubeflow.spec import Spec, compile_yaml
from pipelines.kubeflow.version import ROOT, git_version
from pipelines.kubeflow.versions import deployed
from sonarc.contracts.errors import ConfigError


def spec_of(name: str, profile: Profile) -> Spec:
    """What a name stands for.

    Args:
        name: `git`, `git:<revision>`, `code`, a file's path, `latest`, or an uploaded version's name.

    Raises:
        ConfigError: there is no such thing. PlatformError: Kubeflow had to be asked, and does not answer.
    """
    if name == "git":
        return Spec.of_yaml(COMPILED.read_text(encoding="utf-8"), str(COMPILED))
    if name.startswith("git:"):
        return Spec.of_yaml(_at(name.removeprefix("git:")), name)
    if name == "code":
        return Spec.of_yaml(compile_yaml(profile, git_version()), "this code")
    if Path(name).is_file():
        return Spec.of_yaml(Path(name).read_text(encoding="utf-8"), name)
    return deployed(Kubeflow(profile.kubeflow), name).spec


def _at(revision: str) -> str:
    """The copy in git as it was in a revision."""
    path = COMPILED.relative_to(ROOT).as_posix()
    command = ["git", "-C", str(ROOT), "show", "--end-of-options", f"{revision}:{path}"]
    try:
        shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        why = (getattr(error, "stderr", None) or str(error)).strip().splitlines()[0]
        raise ConfigError(f"git has no compiled pipeline at {revision!r}: {why}", "Name a commit or tag.") from error
    return shown.stdout
