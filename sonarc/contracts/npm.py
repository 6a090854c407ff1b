"""A published npm package, pinned by its bytes and unpacked once in the user's cache folder."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from sonarc.contracts.errors import SourceError
from sonarc.contracts.store import cache_root

FETCH_SECONDS = 300


@dataclass(frozen=True)
class NpmPackage:
    """A package at a version whose archive has one hash."""

    name: str
    version: str
    sha256: str

    def folder(self) -> Path:
        """The unpacked package, fetched if need be.

        Raises:
            SourceError: npm is missing or cannot fetch it, or its bytes are not the pinned ones.
        """
        downloads = cache_root().expanduser() / "downloads"
        downloads.mkdir(parents=True, exist_ok=True)
        unpacked = downloads / f"{self.name}-{self.version}"
        if not unpacked.is_dir():
            self._fetch(unpacked)
        return unpacked / "package"

    def _fetch(self, unpacked: Path) -> None:
        """Download, check and unpack; nothing is left where that fails."""
        if shutil.which("npm") is None:
            raise SourceError("npm is not installed.", "Install npm.")
        with tempfile.TemporaryDirectory(dir=unpacked.parent) as temporary:
            command = ["npm", "pack", f"{self.name}@{self.version}", "--silent", "--pack-destination", temporary]
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_SECONDS, check=False)
            except (OSError, subprocess.TimeoutExpired) as error:
                raise SourceError(f"npm could not fetch {self.name}: {error}.", "Try again.") from error
            archive = Path(temporary) / f"{self.name}-{self.version}.tgz"
            if done.returncode or not archive.is_file():
                reason = done.stderr.strip().splitlines()[-1:] or ["no message"]
                raise SourceError(f"npm could not fetch {self.name}@{self.version}: {reason[0]}.", "Try again.")
            digest = hashlib.sha256(archive.read_bytes()).hexdigest()
            if digest != self.sha256:
                raise SourceError(f"{archive.name} has sha256 {digest}, not {self.sha256}.", "Do not use it.")
            contents = Path(temporary) / "unpacked"
            with tarfile.open(archive) as tar:
                tar.extractall(contents, filter="data")
            if not unpacked.is_dir():  # another may have fetched it meanwhile
                contents.rename(unpacked)
