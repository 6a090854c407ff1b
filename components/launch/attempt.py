"""Which attempt at a stage this process is: its name, its order among the others, and the pod it belongs to.

A process that runs again in the same pod is the same attempt, and finds the RayJob that it made. Another pod is
another attempt, with a name of its own; the later one ends what the earlier ones left. Later is who was tried later by
Kubeflow, then who began later.
"""

from __future__ import annotations

import hashlib
import os
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

RUN, STAGE = "sonarc/run", "sonarc/stage"
"""Labels of a RayJob."""
TOKEN, ORDER = "sonarc/attempt", "sonarc/order"
"""Annotations of a RayJob: whose it is, and its place among the attempts."""


@dataclass(frozen=True)
class Attempt:
    """One attempt at a stage of a pipeline run.

    Attributes:
        token: what tells it from others: the same for as long as the pod lives.
        order: sorts attempts from the earliest to the latest.
        pod: name and uid of the pod it runs in; None outside a cluster.
    """

    run: str
    stage: str
    token: str
    order: str
    pod: tuple[str, str] | None

    @classmethod
    def here(cls, run: str, stage: str, environ: Mapping[str, str] = os.environ) -> Attempt:
        """This process's attempt, by what the downward API and Kubeflow put into its environment.

        SONARC_ATTEMPT names the attempt where a pod's uid should not: pods that share it adopt one RayJob.
        """
        name, uid = environ.get("KFP_POD_NAME", ""), environ.get("KFP_POD_UID", "")
        token = environ.get("SONARC_ATTEMPT") or uid or uuid.uuid4().hex
        retry = environ.get("KFP_RETRY_INDEX", "")
        order = f"{int(retry) if retry.isdecimal() else 0:06d} {datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
        return cls(run, stage, token, order, (name, uid) if name and uid else None)

    @property
    def name(self) -> str:
        """Name of its RayJob: a DNS-1035 label of at most 47 characters, which is as long as KubeRay allows."""
        return f"sonarc-{self.stage}-{_short(self.run)}-{_short(self.token)}"

    @property
    def labels(self) -> dict[str, str]:
        """Labels by which all attempts at the stage, or all of the run, are found."""
        return {"app.kubernetes.io/name": "sonarc", RUN: run_label(self.run), STAGE: self.stage}

    @property
    def annotations(self) -> dict[str, str]:
        """Whose RayJob it is, and its place among the attempts."""
        return {TOKEN: _short(self.token), ORDER: self.order}

    def owns(self, rayjob: Mapping[str, Any]) -> bool:
        """Whether a RayJob is this attempt's own."""
        metadata = rayjob["metadata"]
        labels, annotations = metadata.get("labels", {}), metadata.get("annotations", {})
        found = (labels.get(RUN), labels.get(STAGE), annotations.get(TOKEN))
        return found == (run_label(self.run), self.stage, _short(self.token))

    def precedes(self, rayjob: Mapping[str, Any]) -> bool:
        """Whether a RayJob is of a later attempt, which has taken over."""
        return self.order < str(rayjob["metadata"].get("annotations", {}).get(ORDER, ""))


def run_label(run: str) -> str:
    """A run's name as the value of a label: itself where it may be one, else its hash."""
    return run if re.fullmatch(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?", run) else _short(run)


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:10]
