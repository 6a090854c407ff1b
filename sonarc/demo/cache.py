"""Where downloads and parsed scores are kept between runs: the user's cache folder, never the clone."""

from __future__ import annotations

from pathlib import Path

from sonarc.contracts.store import cache_root


def cache_folder(name: str) -> Path:
    """The folder `name` in Sonarc's cache, made if missing."""
    folder = cache_root().expanduser() / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder
