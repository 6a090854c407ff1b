"""What a profile gives each task of the DAG: image, retries, deadline, resources, nodes, secrets by reference."""

from __future__ import annotations

from typing import Any

from components.image import image, reference
from pipelines.dag import Outfit
from pipelines.kubeflow.profile import Profile, SecretEnv
from sonarc.contracts.errors import ConfigError

RUN_ID_FIELD = "metadata.labels['pipeline/runid']"
"""Where Kubeflow writes a run's id on each of its pods."""
RUN_ID_VARIABLE = "KFP_RUN_ID"


def outfit(profile: Profile, version: str) -> Outfit:
    """What `pipelines.dag.build` gives each task.

    Args:
        version: the git version, which is the tag of images that have neither tag nor digest.

    Raises:
        ConfigError: a component has less at most than it reserves.
    """
    from kfp import kubernetes

    def dress(task: Any, name: str) -> None:
        needs = profile.component(name)
        given = profile.images.get(needs.image)
        task.set_container_image(reference(given, version) if given else image(needs.image, version))
        if needs.retries:
            task.set_retry(needs.retries, backoff_duration=f"{needs.backoff_s}s", backoff_factor=2.0)
        try:
            task.set_cpu_request(needs.cpu).set_cpu_limit(needs.cpu_limit)
            task.set_memory_request(needs.memory).set_memory_limit(needs.memory_limit)
        except ValueError as error:
            raise ConfigError(f"The resources of {name}: {error}", "Write them as 500m, 2, 512Mi, 8Gi.") from error
        for variable, value in sorted(needs.env.items()):
            task.set_env_variable(variable, value)
        kubernetes.set_timeout(task, needs.timeout_s)
        kubernetes.use_field_path_as_env(task, RUN_ID_VARIABLE, RUN_ID_FIELD)
        for key, value in sorted(needs.node_selector.items()):
            kubernetes.add_node_selector(task, key, value)
        for config_map, folder in sorted(needs.config_maps.items()):
            kubernetes.use_config_map_as_volume(task, config_map, folder)
        for secret in _each_once(profile.secrets + needs.secrets):
            kubernetes.use_secret_as_env(task, secret.secret, dict(sorted(secret.keys.items())), secret.optional)

    return dress


def _each_once(secrets: tuple[SecretEnv, ...]) -> list[SecretEnv]:
    """A component's own word on a Secret replaces the profile's."""
    return list({secret.secret: secret for secret in secrets}.values())
