"""A Ray cluster of processes to be killed, and trainings on it as processes of their own."""

from __future__ import annotations

from sonarc.bench.cluster import Cluster, cluster, kill_node, until
from sonarc.bench.cluster import Job as Training

__all__ = ["Cluster", "Training", "cluster", "kill_node", "until"]
