"""Nothing secret may stand in what Kubeflow keeps and shows: parameters, compiled YAML, descriptions."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from sonarc.contracts.errors import ConfigError

HINT = "Secrets reach components by reference only: `secrets` in the profile names a Kubernetes Secret."
SHORTEST = 8
"""Values of secret environment variables that are shorter could be met by chance."""

_SECRET_NAME = re.compile(r"(PASSWORD|PASSWD|SECRET|TOKEN|(?:^|_)KEY|CREDENTIALS?)$", re.IGNORECASE)
_ADDRESS = re.compile(r"\b([a-z][a-z0-9+.-]*)://([^\s/?#:@]*)(:[^\s/?#@]*)?@", re.IGNORECASE)
"""One with a user in it: its scheme, the user, the password."""
_KINDS = {
    "an AWS access key": re.compile(r"\b(AKIA|ASIA)[0-9A-Z]{16}\b"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY"),
    "a GitHub token": re.compile(r"\b(gh[pousr]_\w{30,}|github_pat_\w{30,})"),
    "a Hugging Face token": re.compile(r"\bhf_[A-Za-z0-9]{30,}"),
    "a signed address": re.compile(r"[?&](X-Amz-Signature|sig|Signature|access_token|token)=", re.IGNORECASE),
    "a JSON Web Token": re.compile(r"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\."),
}


def secret_name(variable: str) -> bool:
    """Whether an environment variable of this name holds a secret."""
    return bool(_SECRET_NAME.search(variable))


def refuse_secrets(tree: Any) -> None:
    """Look through every string of a document.

    Raises:
        ConfigError: one looks like a secret, or is the value of a secret environment variable. The message says
            where and of what kind, never what.
    """
    known = {value: name for name, value in os.environ.items() if secret_name(name) and len(value) >= SHORTEST}
    for where, text in _strings(tree):
        kind = _kind(text, known)
        if kind:
            raise ConfigError(f"{where or 'A value'} holds {kind}.", HINT)


def refuse_secret_variables(variables: Mapping[str, str]) -> None:
    """Look through environment variables that everybody may read.

    Raises:
        ConfigError: one is named like a secret, or holds one.
    """
    refuse_secrets(dict(variables))
    for name, value in variables.items():
        if value and _SECRET_NAME.search(name):
            raise ConfigError(f"{name} is named like a secret.", HINT)


def _kind(text: str, known: dict[str, str]) -> str:
    for kind, pattern in _KINDS.items():
        if pattern.search(text):
            return kind
    for scheme, user, password in _ADDRESS.findall(text):
        if password or (user and scheme.lower().startswith(("http", "postgresql"))):
            return "credentials in an address"
    for value, name in known.items():
        if value in text:
            return f"the value of ${name}"
    return ""


def _strings(tree: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(tree, str):
        yield path, tree
    elif isinstance(tree, dict):
        for key, value in tree.items():
            yield from _strings(value, f"{path}.{key}" if path else str(key))
    elif isinstance(tree, list | tuple):
        for index, value in enumerate(tree):
            yield from _strings(value, f"{path}[{index}]")
