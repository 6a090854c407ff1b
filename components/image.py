"""The images components run in. The local runner without containers ignores them.

`SONARC_IMAGES` names what `make images` wrote, and every reference is then a digest; without it a reference is a name
and this version.
"""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path

from sonarc import __version__
from sonarc.contracts.errors import ConfigError

VARIABLE = "SONARC_IMAGES"
ROLES = ("pipeline", "worker", "serve")


@cache
def image(role: str) -> str:
    """Reference of the image of a role.

    Raises:
        ConfigError: SONARC_IMAGES names no file of images, or none with this role.
    """
    file = os.environ.get(VARIABLE)
    if not file:
        return f"sonarc/{role}:{__version__}"
    try:
        return str(json.loads(Path(file).read_text(encoding="utf-8"))["images"][role]["reference"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{VARIABLE}={file!r} tells of no image {role!r}: {error!r}.",
            "Name the images.json that `make images` wrote.",
        ) from error


IMAGE = image("pipeline")
WORKER = image("worker")
"""For components that read or write models in their own process."""
