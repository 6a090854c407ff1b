"""`sonarc run --runner docker`: every component, Ray and the endpoint in the images that `make images` made.

The containers see the host's network, its processes, and, under their own paths, the folders of the run, the store and
MLflow's database: nothing else. Their root is read-only. They are asked for through Docker's API, which podman speaks
too (`podman system service`, DOCKER_HOST).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.image import ROLES, VARIABLE, image
from pipelines.local_ray import LocalRay, brought_up, head_command, wait_until_up
from sonarc.contracts import store
from sonarc.contracts.config import SonarcConfig
from sonarc.contracts.errors import ConfigError, StageError
from sonarc.contracts.processes import free_port, private_env

if TYPE_CHECKING:
    from docker.models.containers import Container

USER = 10_001
"""The images' own user, who runs them where root starts them."""
PASSED = (
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3",
    "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN",
)  # fmt: skip
"""What a container is told of its starter's environment, beside how to be let into Ray."""
SHARED_MEMORY = "3g"
"""For Ray's object store."""


@dataclass(frozen=True)
class Containers:
    """What all containers of a run have in common.

    Attributes:
        user: `uid:gid` they run as.
        writable: folders they see and write.
        readable: folders and files of the user's own that they only read.
        cache: folder, one of the writable ones, for downloads and training state.
    """

    user: str
    writable: tuple[str, ...]
    readable: tuple[str, ...]
    cache: str

    @classmethod
    def of(cls, config: SonarcConfig, runs: Path, store_uri: str, tracking: str) -> Containers:
        """For one run; folders are made, and given to the containers' user where root starts them.

        Raises:
            ConfigError: no images are named, or no engine answers.
        """
        if not os.environ.get(VARIABLE):
            raise ConfigError(
                "No images are named to run in.",
                f"Build them with `make images` and name its images.json in {VARIABLE}.",
            )
        for role in ROLES:
            image(role)
        places = {runs, store.local_path(store_uri)}
        if tracking.startswith("sqlite:///"):
            places.add(Path(tracking.removeprefix("sqlite:///")).parent)
        writable = sorted(str(place) for place in places if place is not None)
        own = {source.uri for source in config.data.sources} | {config.codec.uri, config.evaluate.clap}
        local = {store.local_path(uri) for uri in own if "://" in uri or uri.startswith("/")}
        readable = sorted(str(place) for place in local if place is not None and place.exists())
        user = f"{os.getuid()}:{os.getgid()}" if os.getuid() else f"{USER}:{USER}"
        made = cls(user, tuple(writable), tuple(readable), str(runs / ".cache"))
        for place in writable:
            Path(place).mkdir(parents=True, exist_ok=True)
            made.give(Path(place))
        return made

    def give(self, folder: Path) -> None:
        """Let the containers' user write in a folder and all below it."""
        if os.getuid():
            return
        uid, gid = (int(part) for part in self.user.split(":"))
        for place in (folder, *folder.rglob("*")):
            os.chown(place, uid, gid, follow_symlinks=False)

    def document(self) -> dict[str, Any]:
        """For run.json; nothing secret is in it."""
        return asdict(self)


def run_arguments(containers: Containers) -> dict[str, Any]:
    """Keyword arguments of docker's `containers.run`, as kfp's DockerRunner takes them too."""
    from docker.types import Mount

    mounts = [Mount(place, place, type="bind") for place in containers.writable]
    mounts += [Mount(place, place, type="bind", read_only=True) for place in containers.readable]
    passed = {name: value for name, value in os.environ.items() if name in PASSED or name.startswith("RAY_")}
    return {
        "user": containers.user,
        "mounts": mounts,
        "environment": passed | {"SONARC_CACHE": containers.cache, "USER": "sonarc"},
        "read_only": True,
        "tmpfs": {"/tmp": "mode=1777"},
        "network_mode": "host",  # Ray's jobs API is on loopback, where it belongs
        "pid_mode": "host",  # a server is known, and ended, by its processes
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
    }


@contextlib.contextmanager
def started(role: str, command: list[str], containers: Containers, environment: dict[str, str]) -> Iterator[Container]:
    """A container for the duration of a `with` block.

    Raises:
        ConfigError: no engine answers, or it has no such image.
    """
    import docker

    try:
        client = docker.from_env()
        arguments = run_arguments(containers)
        arguments["environment"] |= environment
        container = client.containers.run(
            image(role), command, detach=True, auto_remove=role == "serve", shm_size=SHARED_MEMORY, **arguments
        )
    except docker.errors.DockerException as error:
        raise ConfigError(
            f"The image {image(role)} cannot be run: {error}.",
            "Start Docker, or `podman system service`, and name its socket in DOCKER_HOST.",
        ) from error
    try:
        yield container
    finally:
        with contextlib.suppress(docker.errors.DockerException):
            container.stop(timeout=10)
        with contextlib.suppress(docker.errors.DockerException):
            container.remove(force=True)
        client.close()


@contextlib.contextmanager
def ray_in_container(logical_cpus: int, log: Path, containers: Containers) -> Iterator[LocalRay]:
    """A head like `local_ray`'s, in the image `worker`.

    Raises:
        StageError: it did not come up; the message names the log.
    """
    env = private_env()
    with brought_up(lambda: _head(env, logical_cpus, log, containers)) as address:
        yield LocalRay(address, env)


@contextlib.contextmanager
def _head(env: dict[str, str], logical_cpus: int, log: Path, containers: Containers) -> Iterator[str]:
    """One try at a head; gives the address of its jobs API."""
    dashboard = free_port()
    address = f"http://127.0.0.1:{dashboard}"
    command = head_command("python", dashboard, logical_cpus, Path("/tmp"))
    with started("worker", command, containers, env) as head:

        def check() -> None:
            head.reload()
            if head.status in ("exited", "dead"):
                raise StageError("The Ray in a container ended at once.", f"Its log: {log}")

        try:
            wait_until_up(address, env["RAY_AUTH_TOKEN"], check, log)
            yield address
        finally:
            with log.open("ab") as output:
                output.write(head.logs())


@contextlib.contextmanager
def standing_server(runs: Path, containers: Containers) -> Iterator[None]:
    """Somebody in the image `serve` who starts the endpoint when it is deployed; stays if the block ends well."""
    from serving.state import stands

    if stands(runs):
        yield
        return
    with contextlib.ExitStack() as ended_if_failed:
        command = ["python", "-m", "serving.standing", "--folder", str(runs)]
        ended_if_failed.enter_context(started("serve", command, containers, {}))
        yield
        ended_if_failed.pop_all()
