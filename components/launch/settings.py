"""Where components find Ray: a YAML document that a cluster mounts into every component's pod.

Absent, it is the Ray jobs API at the address the pipeline is given. `docs/launching.md` has an example.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from sonarc.contracts.config.base import NonNegative, Positive, Section
from sonarc.contracts.errors import ConfigError
from sonarc.contracts.stages import STAGES

VARIABLE = "SONARC_LAUNCHER"
MOUNTED = Path("/etc/sonarc/launcher.yaml")

Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]
"""A DNS-1123 label: what Kubernetes takes for the name of a queue, group or volume."""
ObjectName = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$")]
"""A DNS-1123 subdomain: the name of a Secret, ConfigMap, claim or service account."""
Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|[kMGTPE]|[KMGTPE]i)?$")]
"""An amount as Kubernetes writes it: `500m` or `4` CPUs, `16Gi` of memory."""
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]

_SECRET = re.compile(r"PASSWORD|PASSWD|SECRET|TOKEN|CREDENTIAL|ACCESS_KEY|API_KEY|PRIVATE_KEY", re.IGNORECASE)
_USERINFO = re.compile(r"://[^/@\s]*:[^/@\s]*@")
_MOST_GROUPS = 6
"""Kueue admits a RayJob of at most eight pod sets: head, submitter and so many groups of workers."""
_POD_SETS = {"head", "submitter"}
"""What Kueue calls the first two."""


class SecretKey(Section):
    """A value of a Kubernetes Secret, by reference."""

    secret: ObjectName
    """Name of the Secret."""
    key: str
    """Key in it."""


class Toleration(Section):
    """A taint that pods may be placed in spite of."""

    key: str = ""
    """The taint's key; empty with `Exists`: every taint."""
    operator: Literal["Equal", "Exists"] = "Equal"
    """Whether the value counts."""
    value: str = ""
    """The taint's value."""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""
    """The taint's effect; empty: every effect."""


class Head(Section):
    """What the head pod of a stage's cluster gets, as requests and as limits."""

    cpu: Quantity = "2"
    """CPUs."""
    memory: Quantity = "8Gi"
    """Memory."""
    gpu: Annotated[int, Field(ge=0)] = 0
    """GPUs."""
    node_selector: dict[str, str] = Field(default_factory=dict)
    """Labels of the nodes it may be placed on."""
    tolerations: tuple[Toleration, ...] = ()
    """Taints it may be placed in spite of."""


class Workers(Head):
    """A group of worker pods of a stage's cluster; what each gets is as for the head."""

    name: Name = "workers"
    """The group's name."""
    min_workers: Annotated[int, Field(ge=0)] = 1
    """Pods it begins with, and always has."""
    max_workers: Annotated[int, Field(ge=0)] = 1
    """Pods Ray's autoscaler may grow it to; the same as `min_workers`: no autoscaler."""

    @model_validator(mode="after")
    def _range(self) -> Self:
        if self.min_workers > self.max_workers:
            raise ValueError(f"from {self.min_workers} to {self.max_workers} workers is no range")
        return self


class Volume(Section):
    """A volume mounted into every Ray pod: of exactly one kind."""

    name: Name
    """The volume's name."""
    mount_path: Annotated[str, Field(pattern=r"^/.+$")]
    """Where it is mounted."""
    read_only: bool = False
    """Whether pods may only read it."""
    claim: ObjectName | None = None
    """A PersistentVolumeClaim."""
    secret: ObjectName | None = None
    """A Secret, a file a key."""
    config_map: ObjectName | None = None
    """A ConfigMap, a file a key."""
    empty_dir: Quantity | None = None
    """An empty folder that lives as long as the pod, of at most so much."""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        kinds = [kind for kind in ("claim", "secret", "config_map", "empty_dir") if getattr(self, kind) is not None]
        if len(kinds) != 1:
            raise ValueError(
                f"the volume {self.name} needs exactly one of claim, secret, config_map, empty_dir; it has {len(kinds)}"
            )
        return self


class StageSettings(Section):
    """What one stage has of its own; what is left out is as for all."""

    deadline_seconds: Positive | None = None
    """Seconds from its start after which the job is ended."""
    head: Head | None = None
    """The head."""
    workers: tuple[Workers, ...] | None = None
    """The groups of workers; an empty list: the head alone."""


class LauncherConfig(Section):
    """How components run stages on Ray; all but `backend` is for `kuberay`."""

    backend: Literal["ray_jobs", "kuberay"] = "ray_jobs"
    """`ray_jobs`: the jobs API of a running cluster, at the pipeline's `ray_address`. `kuberay`: a RayJob a stage, with
    a cluster of its own."""
    namespace: Name | None = None
    """Where the RayJobs are made; none: in the component's own namespace, so that they go when its pod is deleted."""
    image: str = ""
    """Image of head, workers and submitter, with a tag other than `latest` or, better, by digest."""
    image_pull_secrets: tuple[ObjectName, ...] = ()
    """Secrets with which the image is pulled."""
    queue: Name | None = None
    """Kueue's LocalQueue: jobs wait there, suspended, until they are admitted. None: they start at once."""
    service_account: ObjectName | None = None
    """Service account of the Ray pods, for cloud identities; no token of it is mounted. None: the namespace's."""
    ray_version: str = "2.60.0"
    """Ray's version in the image."""
    token_auth: bool = True
    """Ray's jobs API, which runs what it is sent, asks for a token that KubeRay makes for each cluster."""
    ttl_seconds: Annotated[int, Field(ge=0)] = 600
    """Seconds that a finished job's cluster stays, to be looked at; the run's exit handler removes it sooner."""
    start_seconds: Positive = 1800
    """Seconds from its admission within which a cluster must be up."""
    stuck_seconds: NonNegative = 120.0
    """Seconds for which an image that cannot be pulled, or a pod that is refused, is waited for."""
    deadline_seconds: Positive = 86_400
    """Seconds from its start after which a job is ended; time in the queue does not count."""
    head: Head = Head()
    """The head of a stage's cluster."""
    workers: tuple[Workers, ...] = (Workers(),)
    """Groups of workers of a stage's cluster."""
    gpu_resource: str = "nvidia.com/gpu"
    """What Kubernetes calls a GPU here."""
    stages: dict[str, StageSettings] = Field(default_factory=dict)
    """Stage → what it has of its own."""
    env: dict[Variable, str] = Field(default_factory=dict)
    """Environment of the Ray pods that anybody may read."""
    secret_env: dict[Variable, SecretKey] = Field(default_factory=dict)
    """Environment of the Ray pods from keys of Secrets."""
    secrets: tuple[ObjectName, ...] = ()
    """Secrets all of whose keys become environment of the Ray pods."""
    volumes: tuple[Volume, ...] = ()
    """Volumes mounted into the Ray pods. The root file system is read-only; /tmp is a folder of the pod's own."""
    scratch: Quantity = "20Gi"
    """The most that /tmp may hold: Ray's sessions, and datasets and latents a stage works on."""
    user: Positive = 1000
    """User id that everything runs as; never root."""
    group: Positive = 1000
    """Group id that everything runs as, and that owns the volumes."""

    def deadline_of(self, stage: str) -> int:
        """Seconds that a stage's job may take."""
        return self.stages.get(stage, StageSettings()).deadline_seconds or self.deadline_seconds

    def head_of(self, stage: str) -> Head:
        """The head of a stage's cluster."""
        return self.stages.get(stage, StageSettings()).head or self.head

    def workers_of(self, stage: str) -> tuple[Workers, ...]:
        """The groups of workers of a stage's cluster."""
        own = self.stages.get(stage, StageSettings()).workers
        return self.workers if own is None else own

    @field_validator("env")
    @classmethod
    def _no_secret(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            if _SECRET.search(name) or _USERINFO.search(text):
                raise ValueError(f"{name} looks like a secret: put it into a Secret and name that in secret_env")
        return value

    @field_validator("stages")
    @classmethod
    def _known(cls, value: dict[str, StageSettings]) -> dict[str, StageSettings]:
        for stage in value:
            if stage not in STAGES or not STAGES[stage].ray:
                raise ValueError(f"{stage} is no stage that runs on Ray")
        return value

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.backend != "kuberay":
            return self
        name, _, digest = self.image.partition("@")
        tag = name.rpartition("/")[2].partition(":")[2]
        if not (digest.startswith("sha256:") or tag) or (tag == "latest" and not digest):
            raise ValueError(f"image {self.image!r} is not pinned: name a tag other than latest, or a digest")
        for stage in STAGES:
            groups = self.workers_of(stage)
            if len(groups) > _MOST_GROUPS or len({group.name for group in groups}) < len(groups):
                raise ValueError(f"workers of {stage}: at most {_MOST_GROUPS} groups, each with a name of its own")
            if taken := _POD_SETS & {group.name for group in groups}:
                raise ValueError(f"workers of {stage}: a group cannot be called {taken.pop()}, as another pod is")
            if self.queue and any(group.min_workers != group.max_workers for group in groups):
                raise ValueError(f"workers of {stage}: a queue admits a fixed number; set max_workers to min_workers")
        return self


def read_launcher() -> LauncherConfig:
    """The settings in the file that SONARC_LAUNCHER names, else in the mounted one, else the defaults.

    Raises:
        ConfigError: the file is missing, no YAML, or a key is unknown or out of range.
    """
    named = os.environ.get(VARIABLE, "")
    path = Path(named or MOUNTED)
    if not named and not path.exists():
        return LauncherConfig()
    return parse_launcher(_read(path), str(path))


def _read(path: Path) -> Any:
    import yaml

    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"The launcher's settings {path} cannot be read: {error}.",
            f"Mount the ConfigMap there, or let {VARIABLE} name the file.",
        ) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"The launcher's settings {path} are no YAML: {error}.", "Mend the ConfigMap.") from error


def parse_launcher(tree: Any, where: str) -> LauncherConfig:
    """Settings from plain data; errors name the field, and never a value that was meant to be secret."""
    try:
        return LauncherConfig.model_validate({} if tree is None else tree)
    except ValidationError as error:
        problems = []
        for problem in error.errors(include_url=False):
            field = ".".join(str(part) for part in problem["loc"]) or "settings"
            ours = problem["type"] != "extra_forbidden" and problem["loc"][:1] not in (("env",), ("secret_env",))
            shown = ours and isinstance(problem["input"], str | int | float)
            value = f" (got {problem['input']!r})" if shown else ""
            problems.append(f"{field}: {problem['msg'].removeprefix('Value error, ')}{value}")
        raise ConfigError(
            f"{where}: {'; '.join(problems)}.", "The page on launching explains every field of the launcher's settings."
        ) from None
