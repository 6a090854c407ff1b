"""`sonarc models`: the registry by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.commands.options import Servers, Store, Tracking, explained

if TYPE_CHECKING:
    from sonarc.tracking.registry import Registry

models = typer.Typer(no_args_is_help=True, help="The registry: versions, what is served, and moving it by hand.")

Model = Annotated[str, typer.Option(help="Registered model: `sonarc`, the generators, or `sonarc-base`.")]
Alias = Annotated[str, typer.Option(help="The alias to move; the endpoint serves `champion`.")]
Why = Annotated[str, typer.Option(help="One sentence for those who ask later; it is kept with who and when.")]


def _registry(place: str, tracking: str) -> Registry:
    from pipelines.places import Places
    from sonarc.tracking.registry import Registry

    places = Places.default(place=place, tracking=tracking)
    return Registry(places.tracking, places.store)


@models.command("list")
def models_list(model: Model = "sonarc", place: Store = "", tracking: Tracking = "", servers: Servers = None) -> None:
    """Every registered version, newest first, and what points at it."""
    with explained():
        from pipelines.models import show_models

        show_models(_registry(place, tracking), model)


@models.command("log")
def models_log(model: Model = "sonarc", place: Store = "", tracking: Tracking = "", servers: Servers = None) -> None:
    """Who moved which alias from where to where, when and why."""
    with explained():
        from pipelines.models import show_moves

        show_moves(_registry(place, tracking), model)


@models.command()
def promote(
    version: Annotated[str, typer.Argument(help="The version to point at.")],
    why: Why,
    model: Model = "sonarc",
    alias: Alias = "champion",
    place: Store = "",
    tracking: Tracking = "",
    servers: Servers = None,
) -> None:
    """Point an alias at a version; the package is verified first, and a move by somebody else meanwhile is noticed."""
    with explained():
        from pipelines.models import in_words

        registry = _registry(place, tracking)
        now = registry.resolve(model, alias)
        moved = registry.move(model, alias, version, why, expected=now.version if now else None)
        typer.echo(in_words(moved, model, alias, version))


@models.command()
def rollback(
    why: Why,
    model: Model = "sonarc",
    alias: Alias = "champion",
    place: Store = "",
    tracking: Tracking = "",
    servers: Servers = None,
) -> None:
    """Point an alias back at the version it pointed at before."""
    with explained():
        from pipelines.models import in_words

        moved = _registry(place, tracking).roll_back(model, alias, why)
        typer.echo(in_words(moved, model, alias, moved.to_version))
