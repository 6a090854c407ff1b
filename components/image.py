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
"""What there is: `pipeline` starts Ray jobs and holds no torch, `worker` computes, `serve` is the endpoint."""


@cache
def image(role: str, version: str = __version__) -> str:
    """Reference of the image of a role.

    Args:
        version: the tag, where there is no digest.

    Raises:
        ConfigError: SONARC_IMAGES names no file of images, or none with this role.
    """
    file = os.environ.get(VARIABLE)
    if not file:
        return f"sonarc/{role}:{version}"
    try:
        return str(json.loads(Path(file).read_text(encoding="utf-8"))["images"][role]["reference"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{VARIABLE}={file!r} tells of no image {role!r}: {error!r}.",
            "Name the images.json that `make images` wrote.",
        ) from error


def reference(given: str, version: str) -> str:
    """An image by digest where there is one, else by its tag, else by the version.

    `name:tag@sha256:…` names one image twice: the digest wins, and the tag, which may move, is dropped.
    """
    name, at, digest = given.partition("@")
    folder, slash, last = name.rpartition("/")
    plain, colon, tag = last.partition(":")
    if at:
        return f"{folder}{slash}{plain}@{digest}"
    return f"{folder}{slash}{plain}:{tag if colon else version}"
