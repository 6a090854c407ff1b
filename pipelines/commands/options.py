"""Options that several commands have, and how every command tells an error."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from sonarc.contracts.errors import NothingNew, SonarcError

INTERRUPTED = 130
_SETTINGS = "sonarc.settings"
"""Where a command's context keeps the settings of a profile of servers."""

Preset = Annotated[
    str, typer.Option("--preset", "-p", help="`laptop`, `ci`, `saos`, or the path of a JSON file of a whole tree.")
]


def _use_servers(context: typer.Context, profile: Path | None) -> Path | None:
    """Before any other option is read: theirs may come from the environment, which this makes."""
    if profile is not None:
        with explained():
            from pipelines.server import use

            context.meta[_SETTINGS] = use(profile)
    return profile


def _after_settings(context: typer.Context, overrides: list[str] | None) -> list[str]:
    return [*context.meta.get(_SETTINGS, ()), *(overrides or ())]


Servers = Annotated[
    Path | None,
    typer.Option(
        "--profile",
        envvar="SONARC_SERVERS",
        is_eager=True,
        callback=_use_servers,
        help="YAML file of servers that run already, as `make stack` writes one: store, MLflow, Ray, endpoint.",
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "-s",
        callback=_after_settings,
        help="Dotted override, as `arc.steps=200`; repeat for more.",
        metavar="KEY=VALUE",
    ),
]
Runs = Annotated[Path, typer.Option(envvar="SONARC_RUNS", help="Folder of run folders, `latest` and `serve.json`.")]
Store = Annotated[
    str,
    typer.Option(
        "--store",
        envvar="SONARC_STORE",
        help="Where datasets, checkpoints and packages are kept: a folder, s3://bucket/prefix; none: the user's cache.",
    ),
]
Tracking = Annotated[
    str,
    typer.Option("--tracking", envvar="MLFLOW_TRACKING_URI", help="MLflow's tracking URI; default: the local one."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No bars: one line at the start and end of a stage.")]


@contextmanager
def explained() -> Iterator[None]:
    """Errors as one clear sentence and an exit code; Ctrl-C, and being told to end, as 130."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except NothingNew as found:
        typer.secho(f"{found.message} {found.hint}", fg="cyan", err=True)
        raise typer.Exit(found.exit_code) from found
    except SonarcError as error:
        typer.secho(f"Error: {error.message}", fg="red", err=True)
        if error.hint:
            typer.secho(error.hint, err=True)
        raise typer.Exit(error.exit_code) from error
    except KeyboardInterrupt as error:
        typer.secho("Interrupted: everything this command started has ended.", fg="yellow", err=True)
        raise typer.Exit(INTERRUPTED) from error
