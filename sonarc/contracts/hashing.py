"""Hashes that name things: canonical JSON, files, source code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

CHUNK = 1 << 20


def canonical_json(value: Any) -> str:
    """One spelling for one value: sorted keys, no spaces, UTF-8, NaN refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def sha256_bytes(data: bytes) -> str:
    """Hex sha256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def sha256_json(value: Any) -> str:
    """Hex sha256 of the canonical JSON of `value`."""
    return sha256_bytes(canonical_json(value).encode("utf-8"))


def sha256_path(path: Path) -> str:
    """Hex sha256 of a local file, read in chunks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_code(packages: Iterable[str]) -> str:
    """Hex sha256 of the files of some packages or modules: source, and the weights and settings shipped with it.

    A cached stage result is only good for the code that made it, so the code itself, not a number
    somebody must remember to raise, enters the key.

    Args:
        packages: dotted names relative to the project root, such as `sonarc.codec` or `sonarc.assets.codec-v3`.
    """
    root = Path(__file__).resolve().parents[2]
    digest = hashlib.sha256()
    for name in sorted(packages):
        place = root.joinpath(*name.split("."))
        found = place.rglob("*") if place.is_dir() else [place.with_name(f"{place.name}.py")]
        files = sorted(file for file in found if file.suffix in (".py", ".json", ".safetensors"))
        for file in files:
            digest.update(file.relative_to(root).as_posix().encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()
