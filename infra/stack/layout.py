"""What all services of a stack have in common: folders, ports, secrets, and the environment of whoever is let in."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from infra.stack.ports import HOST
from infra.stack.programs import PATH
from infra.stack.secret_files import SecretFiles
from sonarc.bench.s3_server import BUCKET, S3
from sonarc.contracts import store
from sonarc.contracts.errors import ConfigError

OTHERS = ("AWS_", "MLFLOW_", "RAY_", "PG", "RCLONE_", "SONARC_", "KFP_")
"""Variables of a shell that speak of other servers, and must not reach these."""
OURS = ("SONARC_CACHE", "SONARC_LOG")
PIPELINE, ENDPOINT, ADMIN = "pipeline", "endpoint", "admin"
"""MLflow's accounts: one that writes, one that only reads, one that makes the others."""
LONGEST_FOLDER = 50
"""Ray puts sockets below its folder, and a socket's path may have 107 bytes."""


def default_folder() -> Path:
    """In the user's cache; PostgreSQL does not run as root, and could not enter root's."""
    return Path("/var/lib/sonarc/stack") if os.geteuid() == 0 else store.cache_root() / "stack"


@dataclass(frozen=True)
class Layout:
    """A stack's folder.

    Attributes:
        ports: see `infra.stack.ports`.
        cpus: how many each of Ray's two nodes declares.
        memory: bytes of each node's object store.
    """

    folder: Path
    ports: Mapping[str, int]
    cpus: int
    memory: int

    def __post_init__(self) -> None:
        if len(str(self.folder)) > LONGEST_FOLDER:
            raise ConfigError(
                f"The data folder {self.folder} has a longer path than Ray's sockets allow.",
                f"Name one of at most {LONGEST_FOLDER} characters with --data.",
            )

    @property
    def secrets(self) -> SecretFiles:
        """Everything that nobody else may read."""
        return SecretFiles(self.folder / "secrets")

    @property
    def profile(self) -> Path:
        """What `sonarc --profile` is given."""
        return self.folder / "stack.yaml"

    @property
    def runs(self) -> Path:
        """Folder of the runs against the stack, and of the endpoint's state."""
        return self.folder / "runs"

    @property
    def keys(self) -> Path:
        """Hashes of the endpoint's keys."""
        return self.folder / "keys.json"

    @property
    def bucket(self) -> S3:
        """The S3 server."""
        key, secret = self.secrets.value("s3-key"), self.secrets.value("s3-secret")
        return S3(self.address("objects"), key, secret, self.folder / "objects")

    @property
    def store(self) -> str:
        """The store's root in the bucket."""
        return f"s3://{BUCKET}/store"

    def address(self, name: str) -> str:
        """Of what speaks HTTP."""
        return f"http://{HOST}:{self.ports[name]}"

    def database(self) -> dict[str, str]:
        """How libpq finds the database server."""
        return {"PGHOST": HOST, "PGPORT": str(self.ports["postgres"])}

    def bare(self) -> dict[str, str]:
        """What every service has in its environment: this shell's, without what speaks of other servers."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(OTHERS) or name in OURS}
        return kept | {"PATH": PATH}

    def public(self) -> dict[str, str]:
        """What a client's environment says besides store and tracking server; anybody may read it."""
        access = self.bucket.environment()
        del access["AWS_ACCESS_KEY_ID"], access["AWS_SECRET_ACCESS_KEY"]
        return access | {
            "MLFLOW_TRACKING_USERNAME": PIPELINE,
            "RAY_AUTH_MODE": "token",
            "SONARC_SERVE_KEYS": str(self.keys),
        }

    def secret(self) -> dict[str, Path]:
        """Variable of a client's environment → file of its value."""
        names = {
            "AWS_ACCESS_KEY_ID": "s3-key",
            "AWS_SECRET_ACCESS_KEY": "s3-secret",
            "MLFLOW_TRACKING_PASSWORD": f"accounts/{PIPELINE}/password",
            "RAY_AUTH_TOKEN": "ray-token",
            "SONARC_API_KEY": "endpoint-key",
        }
        return {variable: self.secrets.path(name) for variable, name in names.items()}

    def client(self, account: str = PIPELINE) -> dict[str, str]:
        """The environment of a service that is a client of the bucket, and of MLflow under an account."""
        said = {"SONARC_STORE": self.store, "MLFLOW_TRACKING_URI": self.address("mlflow")}
        login = {
            "MLFLOW_TRACKING_USERNAME": account,
            "MLFLOW_TRACKING_PASSWORD": self.secrets.value(f"accounts/{account}/password"),
        }
        return self.bare() | said | self.public() | self.bucket.environment() | login
