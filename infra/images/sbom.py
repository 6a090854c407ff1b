"""Write an image's list of contents (CycloneDX JSON): its Python packages and Debian's. Runs in the build stage.

cyclonedx-py tells of Python's, with their licences and what each asks for; dpkg's own list tells of the rest.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

FIELDS = ("Package", "Version", "Architecture")


def python_packages(python: str) -> dict[str, Any]:
    """The document of one environment, the same each time."""
    tool = str(Path(sys.executable).with_name("cyclonedx-py"))
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "sbom.json"
        command = [tool, "environment", python, "--output-reproducible", "--output-file", str(target)]
        subprocess.run(command, check=True)
        document: dict[str, Any] = json.loads(target.read_text(encoding="utf-8"))
    return document


def debian_packages() -> list[dict[str, Any]]:
    """A component for each package that dpkg knows; none on a base without dpkg."""
    if shutil.which("dpkg-query") is None:
        return []
    line = "\t".join(f"${{{field}}}" for field in FIELDS) + "\n"
    listed = subprocess.run(["dpkg-query", "-W", "-f", line], capture_output=True, text=True, check=True)
    components = []
    for name, version, architecture in (row.split("\t") for row in sorted(listed.stdout.splitlines())):
        purl = f"pkg:deb/debian/{name}@{version.replace('+', '%2B').replace(':', '%3A')}?arch={architecture}"
        components.append({"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl})
    return components


def main() -> None:
    """Write the document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", required=True, help="interpreter of the environment")
    parser.add_argument("--role", required=True, help="image the environment is for")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    document = python_packages(arguments.python)
    document["components"] += debian_packages()
    document.setdefault("metadata", {})["component"] = {
        "type": "container",
        "bom-ref": "image",
        "name": f"sonarc-{arguments.role}",
    }
    arguments.output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
