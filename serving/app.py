"""The Ray Serve application: ingresses that admit and answer, generators that batch, one coordinator between them.

client → Ingress (keys, validation, limits, formats) → Generator (dynamic batches) → Ingress → client
             └──────────→ Coordinator (limits across replicas, rollout, jobs, metrics)
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any, cast

import ray
from ray import serve
from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle, DeploymentResponse
from starlette.types import ASGIApp

from serving import errors
from serving.coordinator import Coordinator
from serving.loopback import confine
from serving.state import Lineup, Source
from sonarc import __version__
from sonarc.contracts import log as logs
from sonarc.contracts.config import ServeConfig
from sonarc.contracts.hashing import sha256_json

if TYPE_CHECKING:
    from serving.jobs import JobAudio, JobView, Order
    from serving.work import Admission, Denied, Failed, Info, Made, Progress, Report, Ticket, Work

log = logging.getLogger(__name__)

APP = "sonarc"
UNBOUNDED = 1_000_000
"""Serve queues nothing: the generator's own batcher counts its places, and refuses in our words."""

DRAIN_POLL_S = 0.2
"""How often a stopping replica looks whether its last request has ended, seconds."""


def _begin(config: dict[str, Any]) -> ServeConfig:
    confine()
    logs.setup()
    return ServeConfig.model_validate(config)


@serve.deployment(name="generator")
class GeneratorReplica:
    """An `Engine` in a process of its own.

    `reconfigure` loads other packages beside the present ones and then switches: what is under way
    ends on the model it began with.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        import torch

        from serving.engine import Engine

        settings = _begin(config)
        torch.set_num_threads(settings.threads)
        self._engine = Engine(settings)

    async def reconfigure(self, lineup: dict[str, Any]) -> None:
        """Hold these packages."""
        await self._engine.load(Lineup.model_validate(lineup))

    async def info(self) -> Info | None:
        """What is loaded."""
        return await self._engine.info()

    async def make(self, work: Work) -> Made | Failed:
        """The clips of a work."""
        return await self._engine.make(work)

    async def watch(self, work: Work) -> AsyncGenerator[Progress | Made | Failed]:
        """`make`, telling of the steps on the way."""
        async for event in self._engine.watch(work):
            yield event


@serve.deployment(name="coordinator")
class CoordinatorReplica:
    """The `Coordinator`: one process, so that limits hold across ingresses."""

    def __init__(self, generators: DeploymentHandle, config: dict[str, Any]) -> None:
        self._coordinator = Coordinator(_begin(config), RemoteGenerators(generators))

    async def reconfigure(self, lineup: dict[str, Any]) -> None:
        """Judge these packages."""
        self._coordinator.present(Lineup.model_validate(lineup))

    async def call(self, name: str, *args: Any) -> Any:
        """One of the coordinator's methods."""
        return await getattr(self._coordinator, name)(*args)

    async def job_events(self, job_id: str, owner: str) -> AsyncIterator[JobView]:
        """A job as it changes."""
        async for view in self._coordinator.job_events(job_id, owner):
            yield view


@serve.deployment(name="ingress")
@serve.ingress()
class Ingress:
    """The routes, before the two others."""

    def __init__(self, generators: DeploymentHandle, coordinator: DeploymentHandle, config: dict[str, Any]) -> None:
        self._config = _begin(config)
        self._generators, self._coordinator = RemoteGenerators(generators), RemoteCoordinator(coordinator)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """Asked for by Serve, once."""
        from serving.api import build_api
        from serving.keys import KeyRing, keys_path
        from serving.service import Service

        keys = KeyRing(keys_path(self._config.keys_file))
        return build_api(Service(self._config, self._generators, self._coordinator, keys))


async def _answer(response: DeploymentResponse) -> Any:
    """What a handle's call gives; a process that is not there, or has died, is said in our words.

    Raises:
        ApiError: 503.
    """
    try:
        return await response
    except asyncio.CancelledError:
        response.cancel()
        raise
    except RayTaskError as error:  # a bug of ours; the process lives
        log.error("a call failed: %s", type(error.cause).__name__)
        raise errors.internal() from error
    except (RayError, RayServeException) as error:
        log.warning("a call was lost: %s", type(error).__name__)
        raise errors.lost() from error


class RemoteGenerators:
    """A `GeneratorPeer` behind a handle."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle
        self._watching = handle.options(stream=True)

    async def info(self) -> Info | None:
        """What is loaded."""
        return cast("Info | None", await _answer(self._handle.info.remote()))

    async def make(self, work: Work) -> Made | Failed:
        """The clips of a work."""
        return cast("Made | Failed", await _answer(self._handle.make.remote(work)))

    async def watch(self, work: Work) -> AsyncGenerator[Progress | Made | Failed]:
        """`make`, telling of the steps on the way."""
        response = self._watching.watch.remote(work)
        try:
            async for event in response:
                yield event
        except (RayError, RayServeException) as error:
            raise errors.lost() from error
        finally:
            response.cancel()


class RemoteCoordinator:
    """A `CoordinatorPeer` behind a handle."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle
        self._streaming = handle.options(stream=True)

    async def _call(self, name: str, *args: Any) -> Any:
        return await _answer(self._handle.call.remote(name, *args))

    async def admit(self, ticket: Ticket) -> Admission | Denied:
        """Whether a key may, and which package answers."""
        return cast("Admission | Denied", await self._call("admit", ticket))

    async def settle(self, reports: Sequence[Report]) -> None:
        """What became of some requests."""
        await self._call("settle", reports)

    async def metrics(self) -> str:
        """Prometheus' text."""
        return str(await self._call("metrics"))

    async def backed_off(self) -> str:
        """Why the candidate gets no traffic."""
        return str(await self._call("backed_off"))

    async def start_job(self, order: Order) -> JobView | Denied:
        """Begin a job."""
        return cast("JobView | Denied", await self._call("start_job", order))

    async def job(self, job_id: str, owner: str) -> JobView | None:
        """How a job stands."""
        return cast("JobView | None", await self._call("job", job_id, owner))

    async def job_audio(self, job_id: str, owner: str, index: int) -> JobAudio | None:
        """A clip of a finished job."""
        return cast("JobAudio | None", await self._call("job_audio", job_id, owner, index))

    async def remove_job(self, job_id: str, owner: str) -> bool:
        """Cancel or forget a job."""
        return bool(await self._call("remove_job", job_id, owner))

    async def job_events(self, job_id: str, owner: str) -> AsyncIterator[JobView]:
        """A job as it changes."""
        response = self._streaming.job_events.remote(job_id, owner)
        try:
            async for view in response:
                yield view
        finally:
            response.cancel()


def application(
    config: ServeConfig,
    served: Lineup | Source,
    *,
    generator: Any = GeneratorReplica,
    coordinator: Any = CoordinatorReplica,
) -> serve.Application:
    """The application that serves some packages, or, with replicas that can, what a registry names.

    Deployed again with the same settings and other packages, it swaps the models in place: the code's
    version stays, so that Serve reconfigures the replicas it has instead of starting others.
    """
    settings, packages = config.model_dump(mode="json"), served.model_dump(mode="json")
    common: dict[str, Any] = {
        "version": sha256_json([settings, __version__])[:16],
        "_internal": True,
        "max_ongoing_requests": UNBOUNDED,
        "graceful_shutdown_timeout_s": config.timeout_s,
        "graceful_shutdown_wait_loop_s": DRAIN_POLL_S,
    }
    generator = generator.options(
        num_replicas=config.replicas,
        ray_actor_options={"num_cpus": config.threads, "num_gpus": _gpus(config)},
        user_config=packages,
        **common,
    )
    coordinator = coordinator.options(ray_actor_options={"num_cpus": 0}, user_config=packages, **common)
    ingress = cast(serve.Deployment, Ingress).options(
        num_replicas=config.ingress_replicas, ray_actor_options={"num_cpus": 0}, **common
    )
    generators = generator.bind(settings)
    return ingress.bind(generators, coordinator.bind(generators, settings), settings)


def _gpus(config: ServeConfig) -> float:
    """Part of a GPU for each replica, in the ten-thousandths that Ray counts in."""
    if config.gpus is not None:
        return config.gpus
    found = ray.cluster_resources().get("GPU", 0.0) if ray.is_initialized() else 0.0
    return math.floor(1e4 * min(1.0, found / config.replicas)) / 1e4
