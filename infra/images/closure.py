"""Which packages a role needs: its own list and all that those ask for, in the versions of constraints.txt.

constraints.txt is a resolved set, so there is nothing to resolve: the closure is read from the metadata of the
environment that `make install` made from it.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def read_requirements(file: Path) -> list[Requirement]:
    """The requirements of a file, one a line; comments begin with `#`."""
    lines = (line.split("#", 1)[0].strip() for line in file.read_text(encoding="utf-8").splitlines())
    return [Requirement(line) for line in lines if line]


def closure(wanted: list[Requirement], pins: dict[str, str]) -> list[str]:
    """The wanted packages and everything below them, as pinned requirements, sorted by name.

    Args:
        wanted: what a role imports.
        pins: canonical name → version, from constraints.txt.

    A package that has no pin is one that this environment does without, such as the CUDA libraries that only some
    builds of torch ask for: it stays as it was asked for.
    """
    found: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [(wish, extra) for wish in wanted for extra in ("", *wish.extras)]
    while waiting:
        wish, extra = waiting.pop()
        name = canonicalize_name(wish.name)
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        if name not in pins:
            found[name] = f"{wish.name}{wish.specifier}"
            continue
        found[name] = f"{name}=={pins[name]}"
        for line in metadata.requires(name) or []:
            below = Requirement(line)
            if below.marker is None or below.marker.evaluate({"extra": extra}):
                waiting += [(below, wish_extra) for wish_extra in ("", *below.extras)]
    return [found[name] for name in sorted(found)]


def read_pins(constraints: Path) -> dict[str, str]:
    """Canonical name → version.

    Raises:
        ValueError: a line pins no exact version.
    """
    pins = {}
    for requirement in read_requirements(constraints):
        (only,) = requirement.specifier
        if only.operator != "==":
            raise ValueError(f"{constraints.name}: {requirement} is no exact version.")
        pins[canonicalize_name(requirement.name)] = only.version
    return pins
