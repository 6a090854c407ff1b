"""The application on a cluster where KubeRay keeps it: nobody tells it what to serve, it follows the registry.

    import_path: serving.cluster:build

Which registry and store comes from the environment, as for every other client. A replica that starts takes what the
aliases point at just then; afterwards the coordinator asks every `follow_s` seconds and has all replicas take another
package at once. One that a replica cannot load is given back everywhere, and not tried again until an alias moves;
where the store or the registry was away, or nothing is served yet, it is. Before anything is promoted the endpoint is
up, and not ready.
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Any, cast

from pydantic import BaseModel, ConfigDict
from ray import serve
from ray.serve.handle import DeploymentHandle

from serving import app
from serving.follow import resolve
from serving.state import Lineup, Source
from sonarc.contracts.config import ServeConfig
from sonarc.contracts.errors import ServingError, StoreError, TrackingError

log = logging.getLogger(__name__)

LOAD_SECONDS = 600.0
"""What loading a package may take on every replica together."""
PASSING = (StoreError, TrackingError, OSError)
"""Why a package could not be loaded that says nothing against it."""

_Generator: Any = cast(serve.Deployment, app.GeneratorReplica).func_or_class
_Coordinator: Any = cast(serve.Deployment, app.CoordinatorReplica).func_or_class


class ClusterSettings(BaseModel):
    """`args` of the application in `serveConfigV2`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    serve: ServeConfig = ServeConfig()
    """How to serve. `host` and `port` are the proxies', and set where those are."""
    model: str = "sonarc"
    """The registered model."""
    alias: str = "champion"
    """The alias whose package is served."""


@serve.deployment(name="generator")
class FollowingGenerator(_Generator):  # type: ignore[misc]
    """A generator replica that begins with what the registry says."""

    async def reconfigure(self, source: dict[str, Any]) -> None:
        """Hold what the aliases point at; nothing, while the champion's points at nothing."""
        lineup = await asyncio.to_thread(resolve, Source.model_validate(source))
        if lineup is not None:
            await self.hold(lineup.model_dump(mode="json"))

    async def hold(self, lineup: dict[str, Any]) -> None:
        """Hold these packages."""
        await super().reconfigure(lineup)


@serve.deployment(name="coordinator")
class FollowingCoordinator(_Coordinator):  # type: ignore[misc]
    """The coordinator, which also follows the registry for all."""

    def __init__(self, generators: DeploymentHandle, config: dict[str, Any]) -> None:
        super().__init__(generators, config)
        self._generators, self._every_s = generators, ServeConfig.model_validate(config).follow_s
        self._lineup: Lineup | None = None
        self._refused: Lineup | None = None
        self._following: asyncio.Task[None] | None = None

    async def reconfigure(self, source: dict[str, Any]) -> None:
        """Follow this registry from now on."""
        followed = Source.model_validate(source)
        if self._following is not None:
            self._following.cancel()
        self._following = asyncio.create_task(self._follow(followed))

    async def _follow(self, source: Source) -> None:
        while True:
            try:
                await self._ask(source)
            except Exception as error:  # the registry, or a replica, is away: ask again
                log.warning("The registry was not followed: %s", type(error).__name__)
            if not self._every_s and self._lineup is not None:
                return
            await asyncio.sleep(self._every_s or 1.0)

    async def _ask(self, source: Source) -> None:
        """Ask once, and have every replica hold the answer: one that started amid a change may hold another."""
        said = await asyncio.to_thread(resolve, source)
        if said != self._refused:
            self._refused = None
        lineup = self._lineup if said is None or said == self._refused else said
        if lineup is None:
            return
        problems = await self._hold(lineup)
        if not problems:
            if lineup != self._lineup:
                log.info("serving %s/%s", lineup.champion.model, lineup.champion.version)
                await super().reconfigure(lineup.model_dump(mode="json"))
            self._lineup = lineup
        elif lineup != self._lineup:
            told = "; ".join(map(str, problems))
            log.error("%s/%s is refused: %s", lineup.champion.model, lineup.champion.version, told)
            if self._lineup is not None:
                self._refused = None if all(isinstance(problem, PASSING) for problem in problems) else lineup
                await self._hold(self._lineup)

    async def _hold(self, lineup: Lineup) -> list[BaseException]:
        response = self._generators.broadcast("hold", lineup.model_dump(mode="json"))
        answers = await response.results_async(timeout_s=LOAD_SECONDS, return_exceptions=True)
        problems = [answer for answer in answers if isinstance(answer, BaseException)]
        return [getattr(problem, "cause", None) or problem for problem in problems]  # Ray wraps what a replica raises


def build(args: dict[str, Any]) -> serve.Application:
    """The application that `serveConfigV2` names.

    Args:
        args: see `ClusterSettings`.

    Raises:
        ServingError: the environment does not say where registry and store are.
    """
    settings = ClusterSettings.model_validate(args)
    source = Source(
        tracking=_named("MLFLOW_TRACKING_URI"),
        store=_named("SONARC_STORE"),
        model=settings.model,
        alias=settings.alias,
        candidate_alias=settings.serve.candidate_alias,
    )
    return app.application(settings.serve, source, generator=FollowingGenerator, coordinator=FollowingCoordinator)


def _named(variable: str) -> str:
    if not os.environ.get(variable):
        raise ServingError(f"{variable} is not set.", "The ConfigMap sonarc-environment says it on a cluster.")
    return os.environ[variable]
