"""Who starts the endpoint when a run deploys, with an account at MLflow that only reads."""

from __future__ import annotations

import sys

from infra.stack.layout import ENDPOINT, Layout
from infra.stack.service import Service
from serving import control
from serving.keys import add_key
from serving.state import read_desired, stands

OWNER = "stack"
"""Name of the key in `secrets/endpoint-key`."""


def endpoint(layout: Layout) -> Service:
    """It stands ready; the endpoint itself comes with the first deployment, and again after `down` and `up`."""
    runs = layout.runs
    return Service(
        "endpoint",
        (sys.executable, "-m", "serving.standing", "--folder", str(runs)),
        ready=lambda: stands(runs),
        environment=layout.client(ENDPOINT),
        address=layout.address("endpoint"),
        prepare=lambda: runs.mkdir(exist_ok=True),
        settle=lambda: _serve_again(layout),
        grace=120.0,  # what is under way is finished
        ended=lambda: _clear(layout),
    )


def make_key(layout: Layout) -> None:
    """The stack's own key, unless there is one."""
    if not layout.secrets.path("endpoint-key").exists():
        layout.keys.unlink(missing_ok=True)  # of a start that broke off between the two
        layout.secrets.write("endpoint-key", add_key(layout.keys, OWNER))


def _serve_again(layout: Layout) -> None:
    """What was served last; ports may have changed since."""
    last = read_desired(layout.runs)
    if last is not None:
        served, source = last.served, last.source
        control.deploy(
            served.package_uri,
            served.package_sha256,
            last.config.model_copy(update={"port": layout.ports["endpoint"]}),
            layout.runs,
            model=served.model,
            version=served.version,
            candidate=last.candidate,
            source=source and source.model_copy(update={"tracking": layout.address("mlflow")}),
        )


def _clear(layout: Layout) -> None:
    """A server whose starter was killed."""
    control.stop(layout.runs)
