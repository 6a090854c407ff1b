"""The images components run in on a cluster. The local runner, which needs none, ignores them."""

from __future__ import annotations

import os

from sonarc import __version__

IMAGES = ("pipeline", "worker", "serve")
"""What there is: `pipeline` starts Ray jobs and holds no torch, `worker` computes, `serve` is the endpoint."""


def image(name: str, version: str = __version__) -> str:
    """Reference of an image: what SONARC_IMAGE_PIPELINE, _WORKER or _SERVE says, else `sonarc/<name>`.

    Args:
        version: the tag, where there is neither tag nor digest.
    """
    return reference(os.environ.get(f"SONARC_IMAGE_{name.upper()}") or f"sonarc/{name}", version)


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
