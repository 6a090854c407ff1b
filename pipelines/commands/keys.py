"""`sonarc keys`: who may call the endpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands.options import explained

keys = typer.Typer(no_args_is_help=True, help="API keys of the endpoint: a file of hashes, read again as it changes.")

KeysFile = Annotated[
    Path, typer.Option("--file", envvar="SONARC_SERVE_KEYS", help="The file; `serve.keys_file` must name it too.")
]
KeyName = Annotated[str, typer.Argument(help="Whom it is for: letters, digits, dots, dashes, underscores.")]


@keys.command("add")
def add_key(
    name: KeyName,
    file: KeysFile = Path("keys.json"),
    per_minute: Annotated[int | None, typer.Option(help="Clips a minute; 0: any number.")] = None,
    concurrent: Annotated[int | None, typer.Option(help="Requests at one time; 0: any number.")] = None,
) -> None:
    """Make a key and show it, this once; the file keeps its hash."""
    with explained():
        from serving import keys as ring

        secret = ring.add_key(file, name, requests_per_minute=per_minute, concurrent_requests=concurrent)
        typer.echo(secret)
        typer.echo(f"{file} keeps its hash only. Send it as `Authorization: Bearer KEY`.", err=True)


@keys.command("list")
def list_keys(file: KeysFile = Path("keys.json")) -> None:
    """Names, dates and limits."""
    with explained():
        from serving import keys as ring

        for key in ring.read_keys(file):
            limits = (key.requests_per_minute, key.concurrent_requests)
            per_minute, concurrent = ("server's" if limit is None else limit for limit in limits)
            typer.echo(f"{key.id}\tmade {key.created}\tclips a minute: {per_minute}\tat one time: {concurrent}")


@keys.command("revoke")
def revoke_key(name: KeyName, file: KeysFile = Path("keys.json")) -> None:
    """Take a key away: a running server refuses it from the next request on."""
    with explained():
        from serving import keys as ring

        ring.revoke_key(file, name)
        typer.echo(f"{name} is revoked.")
