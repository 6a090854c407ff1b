"""The services of a stack, in the order they start, and the profile by which `sonarc` uses them."""

from __future__ import annotations

import yaml

from infra.stack.endpoint import endpoint, make_key
from infra.stack.layout import ENDPOINT, PIPELINE, Layout
from infra.stack.mlflow import mlflow
from infra.stack.nodes import head, node
from infra.stack.objects import objects
from infra.stack.postgres import postgres
from infra.stack.prometheus import prometheus
from infra.stack.service import Service
from pipelines.server import ServerProfile

FOLLOW_SECONDS = 5.0
"""How often the endpoint asks the registry whether an alias has moved."""


def services(layout: Layout) -> list[Service]:
    """All of them.

    Raises:
        ConfigError: a program is missing; the hint names what to install.
    """
    make_secrets(layout)
    kinds = (postgres, objects, mlflow, head, node, prometheus, endpoint)
    return [kind(layout) for kind in kinds]


def make_secrets(layout: Layout) -> None:
    """What clients are let in with."""
    for name in ("s3-key", "s3-secret", "ray-token", *(f"accounts/{who}/password" for who in (PIPELINE, ENDPOINT))):
        layout.secrets.value(name)
    make_key(layout)


def profile(layout: Layout) -> ServerProfile:
    """How `sonarc` finds the stack; secrets are named by their files."""
    return ServerProfile(
        store=layout.store,
        tracking=layout.address("mlflow"),
        ray_address=layout.address("ray"),
        runs=str(layout.runs),
        env=layout.public(),
        secrets={variable: str(path.relative_to(layout.folder)) for variable, path in layout.secret().items()},
        settings=(f"serve.port={layout.ports['endpoint']}", f"serve.follow_s={FOLLOW_SECONDS:g}"),
    )


def write_profile(layout: Layout) -> None:
    """Leave the profile in the data folder."""
    fresh = layout.profile.with_suffix(".new")
    fresh.write_text(yaml.safe_dump(profile(layout).model_dump(mode="json"), sort_keys=False), encoding="utf-8")
    fresh.replace(layout.profile)
