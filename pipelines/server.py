"""A profile of servers that run: what `--profile` gives a command instead of the laptop's own store, MLflow and Ray.

One YAML file, typed and checked when it is read; `make stack` writes one:

    store: s3://sonarc/store
    tracking: http://127.0.0.1:5000
    ray_address: http://127.0.0.1:8265
    env: {AWS_ENDPOINT_URL: "http://127.0.0.1:9000", MLFLOW_TRACKING_USERNAME: pipeline, RAY_AUTH_MODE: token}
    secrets: {MLFLOW_TRACKING_PASSWORD: secrets/mlflow, RAY_AUTH_TOKEN: secrets/ray}
    settings: [serve.follow_s=5]
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, field_validator

from pipelines.kubeflow.secrets import refuse_secrets, secret_name
from sonarc.contracts.config.base import Section
from sonarc.contracts.config.tree import explain
from sonarc.contracts.errors import ConfigError

VARIABLE = "SONARC_SERVERS"
"""Names a profile for commands that are given none."""
EnvName = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")]


class ServerProfile(Section):
    """Servers that run already, and how they let a client in."""

    store: str
    """URI of the store's root."""
    tracking: str
    """MLflow's tracking URI."""
    ray_address: str = ""
    """Address of the Ray jobs API that stages are given to; empty: each run starts a Ray of its own."""
    runs: str = ""
    """Folder of run folders and of the endpoint's state; empty: `runs` where the command is given."""
    env: dict[EnvName, str] = Field(default_factory=dict)
    """Environment variables; secrets are refused."""
    secrets: dict[EnvName, str] = Field(default_factory=dict)
    """Environment variable → file of its value, which nobody but its owner may read; relative to the profile."""
    settings: tuple[str, ...] = ()
    """Dotted overrides of the configuration, before those of `--set`."""

    @field_validator("env")
    @classmethod
    def _public(cls, value: dict[str, str]) -> dict[str, str]:
        refuse_secrets(value)
        if named := [name for name in value if secret_name(name)]:
            raise ConfigError(f"env.{named[0]} holds a secret in plain text.", "Name a file of it under `secrets`.")
        return value

    def environment(self, folder: Path) -> dict[str, str]:
        """What a command's environment says of these servers.

        Args:
            folder: of the profile.

        Raises:
            ConfigError: a secret's file cannot be read, or others may read it too.
        """
        said = {"SONARC_STORE": self.store, "MLFLOW_TRACKING_URI": self.tracking, "SONARC_RAY": self.ray_address}
        if self.runs:
            said["SONARC_RUNS"] = str(folder / self.runs)
        return said | self.env | {name: _secret(folder / file) for name, file in self.secrets.items()}


def read_server_profile(path: Path) -> ServerProfile:
    """A profile from its YAML file.

    Raises:
        ConfigError: it cannot be read, a key is unknown, or a value is wrong or a secret.
    """
    import yaml

    try:
        tree: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"Cannot read the profile {path}: {error.strerror}.", "Check the path.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"The profile {path} is not valid YAML: {error}", "Mend the file.") from error
    try:
        return ServerProfile.model_validate(tree or {})
    except ValidationError as error:
        raise ConfigError(
            f"The profile {path}: {explain(error)}", "`make stack` writes one; docs/stack.md has its keys."
        ) from error


def use(path: Path) -> tuple[str, ...]:
    """Turn this process, and what it starts, to a profile's servers.

    Returns:
        The profile's settings.

    Raises:
        ConfigError: see `read_server_profile` and `ServerProfile.environment`.
    """
    path = path.absolute()
    found = read_server_profile(path)
    os.environ.update(found.environment(path.parent))
    os.environ[VARIABLE] = str(path)
    return found.settings


def _secret(file: Path) -> str:
    try:
        others = file.stat().st_mode & 0o077
        value = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The secret's file {file} cannot be read.", "Check its path and who owns it.") from error
    if others:
        raise ConfigError(f"Others than its owner may read the secret's file {file}.", f"chmod 600 {file}")
    return value
