"""The champion of the local registry: find it, serve it, say how things stand."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from pipelines.places import Places
from serving import control
from serving.follow import resolve
from serving.state import ServeState, Source
from sonarc.contracts.config import RegistryConfig, SonarcConfig
from sonarc.contracts.errors import StoreError, TrackingError
from sonarc.report.summary import read_summary
from sonarc.report.terminal import print_summary
from sonarc.tracking.registry import Registered, Registry


def champion(places: Places, settings: RegistryConfig) -> Registered:
    """What the alias points at.

    Raises:
        TrackingError: nothing was promoted yet.
    """
    found = Registry(places.tracking, places.store).resolve(settings.model, settings.alias)
    if found is None:
        raise TrackingError(
            f"The registry has no {settings.alias!r} of {settings.model!r} yet.", "Train one first: `sonarc run`."
        )
    return found


def champion_package() -> str:
    """URI of the default champion's package."""
    return champion(Places.default(), RegistryConfig()).package_uri


def serve_champion(config: SonarcConfig, runs: Path) -> ServeState:
    """Have the champion served: start, swap or keep the server of `runs`."""
    places = Places.default(runs)
    found = champion(places, config.registry)
    source = Source(
        tracking=places.tracking,
        store=places.store,
        model=config.registry.model,
        alias=config.registry.alias,
        candidate_alias=config.serve.candidate_alias,
    )
    lineup = resolve(source)
    return control.deploy(
        found.package_uri,
        found.package_sha256,
        config.serve,
        runs.resolve(),
        model=found.model,
        version=found.version,
        candidate=lineup.candidate if lineup else None,
        source=source,
    )


def show_status(runs: Path) -> None:
    """Print the last run, the live endpoint and the champion."""
    console = Console()
    try:
        print_summary(read_summary(str((runs / "latest" / "summary.json").resolve())), console)
    except StoreError:
        console.print(f"No run has ended in {runs} yet: `sonarc run` makes one.")
    live = control.status(runs.resolve())
    if live is None:
        console.print("Endpoint: none is running; `sonarc serve` starts one.")
    else:
        console.print(f"Endpoint: {live.address}, serving {live.served.model} version {live.served.version}.")
    try:
        found = champion(Places.default(runs), RegistryConfig())
        console.print(f"Champion: {found.model} version {found.version}, package {found.package_sha256[:16]}.")
    except TrackingError as error:
        console.print(f"Champion: {error.message}")
