"""The base image's files, made from Debian's packages: no registry is asked."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

SUITE = "bookworm"
"""The Debian release whose Python is the project's, 3.11."""
EPOCH = 1_686_355_200
"""No file of the base is younger, Unix seconds: the suite's release. So the same packages give the same base."""
PACKAGES = ("ca-certificates", "libstdc++6", "python3", "tzdata")
SOURCES = Path("/etc/apt/sources.list.d/debian.sources")
_HOOK = 'rm -rf "$1"/etc/apt/sources.list* "$1"/var/log/* "$1"/var/cache/* "$1"/var/lib/apt'
"""What a mirror's address and this build's time would be left in."""
_WITHOUT = ("/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*", "/usr/share/doc/*")


def make_rootfs(target: Path) -> None:
    """Write a tar of a minimal system with Python and without a package manager's index.

    Args:
        target: file to write; it appears whole or not at all.

    Packages come, with their signatures checked, from where this machine's own apt gets them; elsewhere from Debian.

    Raises:
        SystemExit: mmdebstrap is missing.
    """
    tool = shutil.which("mmdebstrap")
    if tool is None:
        raise SystemExit("mmdebstrap is missing. Install Debian's package of that name, or name a base: --base.")
    kept = [f"--dpkgopt=path-exclude={pattern}" for pattern in _WITHOUT]
    command = [
        tool, "--quiet", "--variant=essential", f"--include={','.join(PACKAGES)}",
        *kept, "--dpkgopt=path-include=/usr/share/doc/*/copyright",
        f"--customize-hook={_HOOK}", "--format=tar", SUITE, str(target.with_suffix(".part")),
        *([str(SOURCES)] if SOURCES.exists() else []),
    ]  # fmt: skip
    subprocess.run(command, check=True, env=os.environ | {"SOURCE_DATE_EPOCH": str(EPOCH)})
    target.with_suffix(".part").replace(target)
