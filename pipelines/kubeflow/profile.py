"""A cluster's profile: where its Kubeflow is, and what each component needs there. All that differs from a laptop.

One YAML file, typed and checked when it is read:

    kubeflow: {host: https://kubeflow.example.com/pipeline, experiment: sonarc}
    store: s3://sonarc/prod
    tracking: http://sonarc-mlflow:5000
    images: {worker: registry.example.com/sonarc/worker@sha256:…}
    components: {pretrain: {timeout_s: 1209600, node_selector: {pool: jobs}}}
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, field_validator, model_validator

from pipelines.kubeflow.secrets import refuse_secret_variables
from sonarc.contracts.config.base import Positive, PositiveFloat, Section
from sonarc.contracts.config.tree import explain
from sonarc.contracts.errors import ConfigError
from sonarc.contracts.stages import STAGES

COMPONENTS = ("begin", *STAGES, "finish")
ImageName = Literal["pipeline", "worker", "serve"]
Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$")]
SecretName = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$")]
EnvName = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")]


def _no_latest(image: str) -> str:
    name = image.rpartition("/")[2]
    if "@" not in name and name.endswith(":latest"):
        raise ValueError("a tag that moves says nothing; name a version or a digest")
    return image


ImageReference = Annotated[
    str, Field(pattern=r"^[a-z0-9][\w.:/-]*(@sha256:[0-9a-f]{64})?$"), AfterValidator(_no_latest)
]


class KubeflowConfig(Section):
    """How its Kubeflow is reached. Tokens are in files or in the environment, never here."""

    host: str = "http://127.0.0.1:8888"
    """Address of Kubeflow Pipelines' API."""
    namespace: str = ""
    """The user's namespace in a multi-user Kubeflow; empty: there is one namespace only."""
    experiment: str = "sonarc"
    """Experiment that runs and schedules belong to; made where it is missing."""
    service_account: str = ""
    """Kubernetes service account of the runs' pods; empty: Kubeflow's default."""
    timezone: str = "UTC"
    """Time zone of cron expressions: CRON_SCHEDULE_TIMEZONE of its deployment ml-pipeline-scheduledworkflow."""
    token_file: str = ""
    """File with a bearer token, read anew for each request; else the environment's SONARC_KFP_TOKEN; else none."""
    ca_file: str = ""
    """File with the certificate authority of its address; empty: the public ones."""
    request_s: PositiveFloat = 60.0
    """Longest wait for an answer, seconds."""


class SecretEnv(Section):
    """Keys of a Kubernetes Secret as environment variables. Only the names are known here."""

    secret: SecretName
    keys: dict[str, EnvName]
    """Key of the Secret → environment variable."""
    optional: bool = False
    """Whether the component starts where there is no such Secret."""


class ComponentConfig(Section):
    """What a component needs. It launches the work and waits for it: what the work needs is the launcher's affair."""

    image: ImageName = "pipeline"
    """Which of Sonarc's images it runs in."""
    retries: Annotated[int, Field(ge=0, le=10)] = 2
    """Further tries of a failed task. Safe: a stage that is done is taken from the cache, a training goes on."""
    backoff_s: Positive = 30
    """Pause before the second try, seconds; doubled each time."""
    timeout_s: Positive = 6 * 3_600
    """A try is given up after this, seconds."""
    cpu: Quantity = "250m"
    """CPU reserved."""
    cpu_limit: Quantity = "1"
    """CPU at most."""
    memory: Quantity = "512Mi"
    """Memory reserved."""
    memory_limit: Quantity = "2Gi"
    """Memory at most: beyond it the pod is ended."""
    node_selector: dict[str, str] = Field(default_factory=dict)
    """Labels a node must have."""
    env: dict[EnvName, str] = Field(default_factory=dict)
    """Environment variables; secrets are refused."""
    config_maps: dict[SecretName, str] = Field(default_factory=dict)
    """ConfigMap → folder it is mounted at."""
    secrets: tuple[SecretEnv, ...] = ()
    """Secrets by reference."""

    @field_validator("env")
    @classmethod
    def _public(cls, value: dict[str, str]) -> dict[str, str]:
        refuse_secret_variables(value)
        return value


_DAY = 24 * 3_600
_STORE = SecretEnv(
    secret="sonarc-store",
    keys={"AWS_ACCESS_KEY_ID": "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY": "AWS_SECRET_ACCESS_KEY"},
    optional=True,
)
_MLFLOW = SecretEnv(
    secret="sonarc-mlflow",
    keys={"username": "MLFLOW_TRACKING_USERNAME", "password": "MLFLOW_TRACKING_PASSWORD"},
    optional=True,
)
_RAY = SecretEnv(secret="sonarc-ray", keys={"auth_token": "RAY_AUTH_TOKEN"}, optional=True)
DEFAULT_SECRETS = (_STORE, _MLFLOW, _RAY)

DEFAULTS: dict[str, dict[str, Any]] = {
    "begin": {"timeout_s": 900, "retries": 4},
    "encode": {"timeout_s": _DAY},
    "pretrain": {"timeout_s": 14 * _DAY},
    "tune": {"timeout_s": 7 * _DAY},
    "posttrain": {"timeout_s": 14 * _DAY},
    "evaluate": {"timeout_s": _DAY},
    "gate": {"timeout_s": 1_800},
    "promote": {"image": "worker", "timeout_s": 7_200, "cpu_limit": "2", "memory": "2Gi", "memory_limit": "8Gi"},
    "deploy": {"image": "serve", "timeout_s": 1_800, "cpu_limit": "2", "memory": "2Gi", "memory_limit": "8Gi"},
    "smoke": {"image": "serve", "timeout_s": 900},
    "finish": {"timeout_s": 900, "retries": 4},
}
"""Where a component differs from `ComponentConfig`'s own defaults."""


class Profile(Section):
    """A cluster."""

    kubeflow: KubeflowConfig = KubeflowConfig()
    store: str = ""
    """URI of the store's root, such as s3://bucket/prefix. Needed to submit."""
    tracking: str = ""
    """Address of the MLflow server; empty: nothing is tracked, and so nothing can be promoted."""
    ray_address: str = "http://127.0.0.1:8265"
    """Address of the Ray jobs API, as components see it."""
    until: str = "smoke"
    """Last stage; `promote` where the endpoint follows the registry by itself."""
    images: dict[ImageName, ImageReference] = Field(default_factory=dict)
    """Image → reference; without tag or digest it gets the git version as its tag."""
    secrets: tuple[SecretEnv, ...] = DEFAULT_SECRETS
    """Secrets of every component, by reference."""
    every: dict[str, Any] = Field(default_factory=dict)
    """What every component has instead of its defaults: fields of `components`."""
    components: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Component → what it has instead of its defaults."""

    @field_validator("until")
    @classmethod
    def _stage(cls, value: str) -> str:
        if value not in STAGES:
            raise ValueError(f"there is no such stage; it is one of {', '.join(STAGES)}")
        return value

    @model_validator(mode="after")
    def _components(self) -> Self:
        if unknown := set(self.components) - set(COMPONENTS):
            raise ValueError(f"components: there is no {', '.join(sorted(unknown))}; there are {', '.join(COMPONENTS)}")
        for name in COMPONENTS:
            try:
                self.component(name)
            except ValidationError as error:  # pydantic's own text would repeat what was given, a password maybe
                raise ValueError(f"{name}: {explain(error).rstrip('.')}") from None
        return self

    def component(self, name: str) -> ComponentConfig:
        """What a component needs on this cluster."""
        return ComponentConfig.model_validate({**DEFAULTS.get(name, {}), **self.every, **self.components.get(name, {})})


def read_profile(path: Path) -> Profile:
    """A profile from its YAML or JSON file.

    Raises:
        ConfigError: it cannot be read, a key is unknown, a value is wrong or a secret.
    """
    import yaml

    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"Cannot read the profile {path}: {error.strerror}.", "Check the path.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"The profile {path} is not valid YAML: {error}", "Mend the file.") from error
    return _parse(tree or {}, f"The profile {path}")


def changed(profile: Profile, *, host: str = "", images: Mapping[str, str] | None = None) -> Profile:
    """A profile with another address or other images, checked again.

    Raises:
        ConfigError: there is no such image, or its reference is none.
    """
    tree = profile.model_dump(mode="json")
    tree["images"] |= images or {}
    if host:
        tree["kubeflow"]["host"] = host
    return _parse(tree, "The profile")


def _parse(tree: Any, what: str) -> Profile:
    try:
        return Profile.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{what}: {explain(error)}", "The page on Kubeflow shows one.") from error
