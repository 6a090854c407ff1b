"""The launcher's settings in an overlay, read as components read them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import yaml

from components.launch.settings import LauncherConfig, parse_launcher
from infra.check.render import Document, name_of
from sonarc.contracts.errors import ConfigError

FILE = "launcher.yaml"


def settings_are_valid(documents: Sequence[Document]) -> Iterator[str]:
    """A component would take the settings as they are: known keys, pinned image, no secret."""
    for document in _mounted(documents):
        try:
            _read(document)
        except ConfigError as error:
            yield error.message


def launchers(documents: Sequence[Document]) -> Iterator[tuple[str, LauncherConfig]]:
    """Where they stand, and the settings; those that are not valid are left to their own rule."""
    for document in _mounted(documents):
        try:
            yield f"{name_of(document)} {FILE}", _read(document)
        except ConfigError:
            continue


def _mounted(documents: Sequence[Document]) -> Iterator[Document]:
    for document in documents:
        if document["kind"] == "ConfigMap" and FILE in document.get("data", {}):
            yield document


def _read(document: Document) -> LauncherConfig:
    return parse_launcher(yaml.safe_load(document["data"][FILE]), f"{name_of(document)} {FILE}")
