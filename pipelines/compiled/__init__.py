"""The compiled pipeline kept in git: a versioned DAG that needs no Python to submit."""

from __future__ import annotations

import tempfile
from pathlib import Path

COMPILED = Path(__file__).parent / "sonarc.yaml"


def compile_text() -> str:
    """The DAG as Kubeflow YAML; the same code always gives the same text."""
    from kfp.compiler import Compiler

    from pipelines.dag import build

    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "sonarc.yaml"
        Compiler().compile(build(), str(target))
        return target.read_text(encoding="utf-8")
