"""A KubeRay RayJob a stage: claimed under a name of the attempt's own, followed to its end, removed when given up."""

from __future__ import annotations

import contextlib
import shlex
import time
from dataclasses import dataclass

from components.launch.attempt import ORDER, RUN, STAGE, Attempt, run_label
from components.launch.backend import Ended, StageJob
from components.launch.follow import states
from components.launch.kube import ConflictError, Kube, RayJobObject
from components.launch.obstacles import Obstacles
from components.launch.phases import EndedError, has_ended, how_it_ended, in_words, is_starting
from components.launch.pod_log import PodLog
from components.launch.rayjob import rayjob
from components.launch.settings import LauncherConfig
from sonarc.contracts.errors import ConfigError, StageError

REMOVAL_SECONDS = 600.0
"""Waited for the cluster of an earlier attempt to be gone, pods and all."""
REMOVAL_PAUSE_SECONDS = 1.0
PYTHON = "python"


@dataclass(frozen=True)
class KubeRay:
    """A backend that makes a RayJob for each stage."""

    settings: LauncherConfig
    kube: Kube

    @classmethod
    def connect(cls, settings: LauncherConfig) -> KubeRay:
        """Over the cluster this process runs in, or that its kubeconfig names."""
        return cls(settings, Kube.connect(settings.namespace))

    def run(self, job: StageJob) -> Ended:
        """Make the attempt's RayJob, or find it, and follow it to its end."""
        if not job.run:
            raise ConfigError(
                "The pipeline run has no name, so its RayJobs could not be found again.",
                "Set KFP_RUN_ID in the component's environment, or pass run_name to launch.",
            )
        attempt = Attempt.here(job.run, job.stage)
        try:
            self._claim(job, attempt)
            with PodLog(self.kube, attempt.name) as log:
                ended = self._follow(job, attempt.name)
            return Ended(*ended, log.tail)
        except EndedError:
            raise
        except BaseException:
            with contextlib.suppress(Exception):
                there = self.kube.get(attempt.name)
                if there is not None and attempt.owns(there):  # the name may be somebody else's
                    self.kube.delete(attempt.name)
            raise

    def cleanup(self, run: str) -> list[str]:
        """Remove every RayJob of a run, whatever its state."""
        found, _ = self.kube.rayjobs(labels={RUN: run_label(run)})
        return [rayjob_name for rayjob_name in map(_name, found) if self.kube.delete(rayjob_name)]

    def _claim(self, job: StageJob, attempt: Attempt) -> None:
        """Have exactly one RayJob of this stage and run: this attempt's own, made now or before."""
        if self._alone(job, attempt):
            job.say(f"found its RayJob {attempt.name}")
            return
        command = job.command(PYTHON, attempt.name)
        if any(shlex.quote(part) != part for part in command):
            # KubeRay's submitter and Ray's command line each parse it once more: what has to be quoted would be lost.
            raise ConfigError(
                f"The store's address {job.request.store!r} holds characters that a shell takes for its own.",
                "Use a prefix of letters, digits and ._-/ only.",
            )
        from sonarc.contracts.computing import computing_env

        job.prepare(attempt.name)
        body = rayjob(
            self.settings,
            attempt,
            " ".join(command),
            computing_env(job.request.config.compute.threads),
            owned=self.kube.namespace == self.kube.own_namespace,
        )
        try:
            self.kube.create(body)
        except ConflictError as error:  # also the answer to a create that was repeated because its answer was lost
            there = self.kube.get(attempt.name)
            if there is None or not attempt.owns(there):
                raise self._error(
                    f"The name {attempt.name} is taken: {error}.", f"get rayjob {attempt.name}"
                ) from error
        job.say(f"made the RayJob {attempt.name}")
        self._alone(job, attempt)  # another may have looked before ours was there

    def _alone(self, job: StageJob, attempt: Attempt) -> bool:
        """Remove what earlier attempts left, and say whether this one's RayJob is there.

        Raises:
            StageError: a later attempt has taken over, or an earlier one's cluster does not go.
        """
        labels = {RUN: run_label(attempt.run), STAGE: attempt.stage}
        found, _ = self.kube.rayjobs(labels=labels)
        mine = [other for other in found if attempt.owns(other) and "deletionTimestamp" not in other["metadata"]]
        others = [other for other in found if other not in mine]
        for other in others:
            if not attempt.owns(other) and attempt.precedes(other):
                raise self._error(
                    f"A later attempt at {attempt.stage} has taken over ({_name(other)}, "
                    f"{other['metadata']['annotations'][ORDER]}).",
                    f"get rayjobs -l {RUN}={labels[RUN]}",
                )
        for name in map(_name, others):
            job.say(f"removes the RayJob {name} of an earlier attempt")
            self._remove(name)
        return bool(mine)

    def _remove(self, name: str) -> None:
        """Delete a RayJob and wait until it, its cluster and their pods are gone."""
        until = time.monotonic() + REMOVAL_SECONDS
        there = self.kube.delete(name)
        while there:
            if time.monotonic() > until:
                raise self._error(
                    f"The RayJob {name} of an earlier attempt is still there after {REMOVAL_SECONDS:.0f} s.",
                    f"get rayjob {name} -o yaml  (finalizers), and its pods",
                )
            time.sleep(REMOVAL_PAUSE_SECONDS)
            there = self.kube.get(name) is not None

    def _follow(self, job: StageJob, name: str) -> tuple[bool, str]:
        """Wait for the end of a RayJob: whether it succeeded, and what Ray says of it."""
        obstacles, said = Obstacles(self.kube, name, self.settings.stuck_seconds), ""
        for state in states(self.kube, name):
            if has_ended(state):
                return how_it_ended(state)
            if is_starting(state):
                obstacles.check(state.get("status", {}))
            now = in_words(state)
            if now != said:
                said = now
                job.say(now)
        raise self._error(
            f"The RayJob {name} was removed while it ran: by a later attempt, the run's exit handler, or by hand.",
            f"get events --field-selector involvedObject.name={name}",
        )

    def _error(self, message: str, look: str) -> StageError:
        return StageError(message, f"Look: kubectl -n {self.kube.namespace} {look}")


def _name(rayjob: RayJobObject) -> str:
    return str(rayjob["metadata"]["name"])
