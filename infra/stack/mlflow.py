"""MLflow's server: runs and accounts in PostgreSQL, artifacts in the bucket."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from importlib.metadata import version
from pathlib import Path

from infra.stack.layout import ADMIN, ENDPOINT, PIPELINE, Layout
from infra.stack.ports import HOST, answers
from infra.stack.programs import program
from infra.stack.service import Service
from sonarc.bench.s3_server import BUCKET
from sonarc.contracts.errors import StageError

TRACKING = Path(__file__).parents[1] / "base" / "tracking"
"""Its settings and the script that makes its accounts, here as on a cluster."""
RUNS_TABLES = "postgresql+psycopg:///mlflow"


def mlflow(layout: Layout) -> Service:
    """The server. libpq, botocore and MLflow read their secrets from the environment."""
    executable, secrets, port = program("mlflow", "make install"), layout.secrets, layout.ports["mlflow"]
    environment = (
        layout.bare()
        | layout.bucket.environment()
        | layout.database()
        | {
            "PGUSER": "mlflow",
            "PGPASSWORD": secrets.value("mlflow-database"),
            "MLFLOW_ARTIFACTS_DESTINATION": f"s3://{BUCKET}/mlflow",
            "MLFLOW_AUTH_CONFIG_PATH": str(TRACKING / "basic_auth.ini"),
            "MLFLOW_AUTH_ADMIN_USERNAME": ADMIN,
            "MLFLOW_AUTH_ADMIN_PASSWORD": secrets.value("mlflow-admin"),
            "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.value("mlflow-session"),
            "MLFLOW_DISABLE_TELEMETRY": "true",
            # Its evaluations of language models: eight processes that nothing here has work for.
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        }
    )
    command = (
        # One worker: of several, uvicorn ends any that is slow to answer it, on a busy machine again and again.
        executable, "server", f"--host={HOST}", f"--port={port}", "--workers=1", "--app-name=basic-auth",
        f"--backend-store-uri={RUNS_TABLES}", "--allowed-hosts=localhost:*,127.0.0.1:*", "--x-frame-options=DENY",
    )  # fmt: skip
    return Service(
        "mlflow",
        command,
        ready=lambda: answers(f"{layout.address('mlflow')}/health"),
        environment=environment,
        address=layout.address("mlflow"),
        prepare=lambda: _tables(executable, environment, layout.folder / "mlflow-tables"),
        settle=lambda: _accounts(layout),
    )


def _tables(executable: str, environment: dict[str, str], made: Path) -> None:
    """Its tables, or those of an older version moved forward; the file `made` says which version's they are."""
    ours = version("mlflow")
    if made.exists() and made.read_text(encoding="utf-8") == ours:
        return
    _run([executable, "db", "upgrade", RUNS_TABLES], environment, "MLflow's tables could not be made.")
    made.write_text(ours, encoding="utf-8")


def _accounts(layout: Layout) -> None:
    """The pipeline's account and the endpoint's."""
    secrets = layout.secrets
    for name in (PIPELINE, ENDPOINT):
        secrets.value(f"accounts/{name}/username", partial(str, name))
        secrets.value(f"accounts/{name}/password")
    login = {
        "MLFLOW_TRACKING_URI": layout.address("mlflow"),
        "MLFLOW_TRACKING_USERNAME": ADMIN,
        "MLFLOW_TRACKING_PASSWORD": secrets.value("mlflow-admin"),
    }
    command = [sys.executable, str(TRACKING / "accounts.py"), str(secrets.path("accounts"))]
    _run(command, layout.bare() | login, "MLflow's accounts could not be made.")


def _run(command: list[str], environment: dict[str, str], failed: str) -> None:
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    if done.returncode:
        raise StageError(failed, "\n".join(done.stderr.strip().splitlines()[-15:]))
