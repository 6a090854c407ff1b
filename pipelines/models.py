"""`sonarc models`: what is registered, what an alias points at, and moving it by hand."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from sonarc.contracts.errors import TrackingError
from sonarc.tracking.registry import AliasMove, Registry


def show_models(registry: Registry, model: str) -> None:
    """Print the versions of a model, newest first, with the aliases that point at each.

    Raises:
        TrackingError: nothing of that name is registered.
    """
    versions = registry.versions(model)
    if not versions:
        raise TrackingError(f"Nothing is registered as {model!r}.", "Train and promote one first: `sonarc run`.")
    table = Table(box=None, header_style="bold")
    for column in ("version", "aliases", "registered", "package", "where"):
        table.add_column(column, overflow="fold")
    for one in versions:
        package = one.registered.package_sha256[:12]
        table.add_row(one.registered.version, ", ".join(one.aliases), one.when, package, one.registered.package_uri)
    Console().print(table)


def show_moves(registry: Registry, model: str) -> None:
    """Print every move of the model's aliases, oldest first."""
    table = Table(box=None, header_style="bold")
    for column in ("when", "who", "alias", "from", "to", "why"):
        table.add_column(column, overflow="fold")
    for move in registry.audit(model):
        table.add_row(move.when, move.who, move.alias, move.from_version or "–", move.to_version, move.why)
    Console().print(table)


def in_words(move: AliasMove | None, model: str, alias: str, version: str) -> str:
    """What a move did."""
    if move is None:
        return f"{alias} of {model} pointed at version {version} already."
    return f"{alias} of {model}: version {move.from_version or '(none)'} → {move.to_version}, by {move.who}: {move.why}"
