"""What a run is started with: typed, complete, free of secrets, and what its version of the pipeline asks for."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict

from pipelines.kubeflow.facts import parameters
from pipelines.kubeflow.profile import Profile
from pipelines.kubeflow.secrets import refuse_secrets
from pipelines.kubeflow.spec import Spec
from sonarc.contracts.config import SonarcConfig
from sonarc.contracts.errors import ConfigError

_TYPES: dict[str, tuple[type, ...]] = {
    "STRING": (str,),
    "BOOLEAN": (bool,),
    "NUMBER_INTEGER": (int,),
    "NUMBER_DOUBLE": (int, float),
    "LIST": (list,),
    "STRUCT": (dict,),
}


class RunParameters(BaseModel):
    """The parameters of `pipelines.dag`, checked."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    config: SonarcConfig
    store: str
    tracking: str
    ray_address: str

    @classmethod
    def of(cls, profile: Profile, config: SonarcConfig) -> RunParameters:
        """A configuration, on a cluster.

        Raises:
            ConfigError: the profile lacks an address that a pod could use, or a value is a secret.
        """
        for name in ("store", "ray_address"):
            if not urlsplit(getattr(profile, name)).scheme:
                raise ConfigError(
                    f"{name} {getattr(profile, name)!r} is no address that a pod could use.",
                    f"Set {name} in the profile, as s3://bucket/prefix or http://host:port.",
                )
        if profile.tracking and urlsplit(profile.tracking).scheme not in ("http", "https"):
            raise ConfigError(
                f"tracking {profile.tracking!r} is no MLflow server's address.",
                "Set tracking in the profile, as http://sonarc-mlflow:5000; a database cannot be shared by pods.",
            )
        made = cls(
            config=config,
            store=profile.store,
            tracking=profile.tracking,
            ray_address=profile.ray_address,
        )
        refuse_secrets(made.model_dump(mode="json"))
        return made

    def given_to(self, version: Spec) -> dict[str, Any]:
        """As a version of the pipeline takes them.

        Raises:
            ConfigError: it asks for something else; the message names what.
        """
        given = {
            "config": self.config.model_dump_json(),
            "store": self.store,
            "tracking": self.tracking,
            "ray_address": self.ray_address,
        }
        asked = parameters(version)
        wrong = [f"{name} is unknown" for name in given if name not in asked]
        wrong += [f"{name} is missing" for name, facts in asked.items() if "default" not in facts and name not in given]
        for name, value in given.items():
            wanted = _TYPES.get(asked.get(name, {}).get("type", ""))
            if wanted and not isinstance(value, wanted):
                wrong.append(f"{name} is a {type(value).__name__}")
        if wrong:
            raise ConfigError(
                f"This version of the pipeline asks for other parameters: {', '.join(wrong)}.",
                "Upload this code's (`sonarc pipeline upload`), or submit with the code of that version.",
            )
        return given
