"""A component's container from its start to its removal, in place of what kfp's local runner does.

kfp has the engine remove the container as it ends, and asks for its log and its exit code then. Of one that ends at
once it learns neither: with Docker it takes it for one that succeeded, with podman the whole run fails.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import docker


def run_docker_container(
    client: docker.DockerClient, image: str, command: list[str], volumes: dict[str, Any], **container_run_args: Any
) -> int:
    """Run a command in a container, print what it says, and remove the container, however this ends.

    The signature is kfp's (`kfp.local.docker_task_handler`, 2.17).

    Returns:
        The command's exit code.

    Raises:
        docker.errors.DockerException: the image is not there, or the engine does not answer.
    """
    from docker.errors import DockerException

    container = client.containers.run(
        image=image, command=command, detach=True, stdout=True, stderr=True, volumes=volumes, **container_run_args
    )
    try:
        for line in container.logs(stream=True, follow=True):
            print(line.decode(errors="replace"), end="", flush=True)
        return int(container.wait()["StatusCode"])
    finally:
        with contextlib.suppress(DockerException):
            container.remove(force=True)


def use_in_kfp() -> None:
    """Have kfp's DockerRunner run components so."""
    from kfp.local import docker_task_handler

    docker_task_handler.run_docker_container = run_docker_container
