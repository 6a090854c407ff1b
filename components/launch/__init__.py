"""What every component does: look in the stage cache, else run the stage, on Ray or right here.

Runs inside a component's process, under kfp's local runner and in a pod alike. Where Ray is found is a matter of the
launcher's settings: the jobs API of a running cluster, or a KubeRay RayJob of the stage's own.
"""

from __future__ import annotations

from components.launch.backend import Backend, Ended, StageJob
from components.launch.records import StageFailed, StageRecord, artifact_metadata
from components.launch.settings import LauncherConfig, read_launcher
from components.launch.stage import cleanup, launch

__all__ = [
    "Backend",
    "Ended",
    "LauncherConfig",
    "StageFailed",
    "StageJob",
    "StageRecord",
    "artifact_metadata",
    "cleanup",
    "launch",
    "read_launcher",
]
