"""Run the DAG in kfp's local runner: `python -m pipelines.execute --run run.json`.

A process of its own, so that its log goes to a file while the terminal shows progress bars, and so that
ending its process group ends the components too.
"""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
from pathlib import Path
from typing import Any

from kfp import local

from pipelines.dag import build


def main() -> None:
    """Read the run's parameters and execute it; exit code 1 when a task failed."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.execute", description=__doc__)
    parser.add_argument(
        "--run", type=Path, required=True, help="JSON document: until, pipeline_root, parameters, containers"
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that containers are removed
    document = json.loads(parser.parse_args().run.read_text(encoding="utf-8"))
    logging.basicConfig(level=logging.INFO)
    local.init(
        runner=_runner(document["containers"]),
        pipeline_root=document["pipeline_root"],
        raise_on_error=True,
    )
    try:
        build(document["until"])(**document["parameters"])
    except RuntimeError as error:
        # The task's own error is already in the log and in the run's error.json.
        sys.exit(f"pipeline failed: {error}")


def _runner(containers: dict[str, Any] | None) -> local.SubprocessRunner | local.DockerRunner:
    """Where components run: in processes beside this one, or in containers."""
    if containers is None:
        return local.SubprocessRunner(use_venv=False)
    from pipelines.component_container import use_in_kfp
    from pipelines.containers import Containers, run_arguments

    use_in_kfp()
    return local.DockerRunner(**run_arguments(Containers(**containers)))


if __name__ == "__main__":
    main()
