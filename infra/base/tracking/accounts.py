"""MLflow's accounts besides the administrator's: each exists and has the password that its Secret says. Safe to repeat.

The folder beside this file's Secrets: <accounts>/<name>/username and password. The administrator's own credentials are
in the environment, as for every client.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from mlflow.exceptions import MlflowException
from mlflow.server.auth.client import AuthServiceClient


def ensure(client: AuthServiceClient, username: str, password: str) -> str:
    """Make an account, or give it this password."""
    try:
        client.create_user(username, password)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        client.update_user_password(username, password)
        return "kept"
    return "made"


def main(accounts: Path) -> None:
    """One account a folder."""
    client = AuthServiceClient(os.environ["MLFLOW_TRACKING_URI"])
    for folder in sorted(found for found in accounts.iterdir() if found.is_dir()):
        username, password = ((folder / name).read_text("utf-8").strip() for name in ("username", "password"))
        print(f"{username}: {ensure(client, username, password)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
