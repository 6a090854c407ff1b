"""A RayJob's state over time: listed, then watched, and listed anew when the watch has lost its place."""

from __future__ import annotations

import time
from collections.abc import Iterator

from components.launch.kube import GoneError, Kube, RayJobObject, UnreachableError
from sonarc.contracts.errors import StageError

WATCH_SECONDS = 10
"""Length of one watch; after each the state is given again, so that its reader can look at more than the RayJob."""
PAUSE_SECONDS = (0.5, 30.0)
"""Between two tries to reach an API server that is away: at first, and at most."""
PATIENCE_SECONDS = 900.0
"""An API server may be away for so long while a job runs on: the control plane is being upgraded."""


def states(kube: Kube, name: str) -> Iterator[RayJobObject]:
    """A RayJob as it is, then after each change and at least every `WATCH_SECONDS`; ends when it is removed.

    Raises:
        StageError: the API server refuses, or stays away for longer than `PATIENCE_SECONDS`.
    """
    version, pause, answered = "", PAUSE_SECONDS[0], time.monotonic()
    state: RayJobObject = {}
    while True:
        try:
            if not version:
                found, version = kube.rayjobs(name=name)
                if not found:
                    return
                state, answered = found[0], time.monotonic()
            yield state
            for kind, event in kube.watch(name, version, WATCH_SECONDS):
                version = event["metadata"]["resourceVersion"]
                if kind == "DELETED":
                    return
                if kind != "BOOKMARK":
                    state = event
                    yield state
            pause, answered = PAUSE_SECONDS[0], time.monotonic()
        except GoneError:
            version = ""
        except UnreachableError as error:
            away = time.monotonic() - answered
            if away > PATIENCE_SECONDS:
                raise StageError(
                    f"After {away:.0f} s: {error.message}",
                    f"The RayJob may still run: kubectl get rayjob {name} -n {kube.namespace}",
                ) from error
            time.sleep(pause)
            version, pause = "", min(2 * pause, PAUSE_SECONDS[1])
