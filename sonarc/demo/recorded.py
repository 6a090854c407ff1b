"""Recorded CC0 one-shots and loops, found where a package has put them, with captions from their names.

The files are named `category_description`. Looked for in this order: the user's cache folder, the npm
package (fetched into that folder), and the folder of Debian's `sonic-pi-samples`.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from sonarc.contracts.errors import SourceError
from sonarc.contracts.npm import NpmPackage
from sonarc.demo.vocabulary import describe

NPM_PACKAGE = NpmPackage(
    "supersonic-scsynth-samples", "0.84.2", "aff0b03208adb5dc7612dc7a4e86d55161188326bcff4dbc2d20ce9e1b94238c"
)
DEBIAN_PACKAGE = "sonic-pi-samples"
FEWEST_FILES = 100


@dataclass(frozen=True)
class Recording:
    """One recorded file, its captions, the facts behind them, and where it comes from."""

    path: Path
    captions: tuple[str, ...]
    concept: dict[str, Any]
    group: str
    author: str
    url: str


def locate_recordings() -> list[Recording]:
    """All recorded files, in one fixed shuffled order, fetched if need be.

    Raises:
        SourceError: neither npm nor Debian's package can give them.
    """
    folder, provenance = _folder()
    credits_by_name = _credits(provenance)
    recordings = []
    for path in sorted(folder.glob("*.flac"), key=lambda p: hashlib.sha256(p.stem.encode()).hexdigest()):
        described = describe(path.stem)
        if described is None:
            continue
        author, url = credits_by_name.get(path.stem.replace("_", ""), ("", ""))
        recordings.append(Recording(path, described.captions, described.concept, described.group, author, url))
    return recordings


def _folder() -> tuple[Path, Path | None]:
    """The folder of samples and the file that credits them, if there is one."""
    try:
        unpacked = NPM_PACKAGE.folder()
    except SourceError as error:
        installed = _debian_folder()
        if installed is None:
            raise SourceError(
                f"{error.message} Debian's {DEBIAN_PACKAGE} is not installed either.",
                f"Install npm, or install {DEBIAN_PACKAGE} with apt, or use only the scores.",
            ) from error
        return installed, None
    return unpacked / "samples", unpacked / "PROVENANCE.md"


def _debian_folder() -> Path | None:
    """Where the Debian package has put its samples, as dpkg records it."""
    dpkg = shutil.which("dpkg-query")
    if dpkg is None:
        return None
    listed = subprocess.run([dpkg, "-L", DEBIAN_PACKAGE], capture_output=True, text=True, check=False)
    folders = {Path(line).parent for line in listed.stdout.splitlines() if line.endswith(".flac")}
    counted = {folder: len(list(folder.glob("*.flac"))) for folder in folders}
    best = max(counted, key=lambda folder: counted[folder], default=None)
    return best if best is not None and counted[best] >= FEWEST_FILES else None


def _credits(provenance: Path | None) -> dict[str, tuple[str, str]]:
    """Author and address by file name without underscores, from lines "* `:name` - where it is from"."""
    if provenance is None or not provenance.is_file():
        return {}
    found: dict[str, tuple[str, str]] = {}
    for name, origin in re.findall(r"^\* `:?(\w+)`\s*-\s*(.+)$", provenance.read_text(), flags=re.MULTILINE):
        address = re.match(r"https?://\S+", origin, flags=re.IGNORECASE)
        donor = re.search(r"Donated by (.+?) under", origin)
        if address:
            person = re.search(r"/people/([^/]+)/", address.group(), flags=re.IGNORECASE)
            author = unquote(person.group(1)) if person else ""
            found[name.replace("_", "")] = (author, address.group())
        elif donor:
            found[name.replace("_", "")] = (donor.group(1), "")
    return found
