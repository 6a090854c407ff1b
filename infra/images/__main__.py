"""Build the images `pipeline`, `worker` and `serve`: `python -m infra.images`, or `make images`.

Leaves `build/images/images.json`: each image by its digest. Name that file in SONARC_IMAGES, and components ask for
exactly these images.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from datetime import UTC, datetime
from pathlib import Path

from infra.images.base import EPOCH
from infra.images.context import HERE, ROLES, ROOT, gather, git
from infra.images.engine import PROGRAMS, Engine

OUT = ROOT / "build" / "images"
DIGEST = re.compile(r".+@sha256:[0-9a-f]{64}")


def main() -> None:
    """Build, push where asked, and write down what there is."""
    arguments = _arguments()
    engine = Engine.find(arguments.out, arguments.engine)
    # What git tracks, as it is in the folder now; changes that are not committed are said in the version.
    revision = git("stash", "create") or git("rev-parse", "HEAD")
    version = git("describe", "--always", "--dirty", "--abbrev=12")
    epoch = int(git("log", "-1", "--format=%ct"))
    begun = time.monotonic()
    print(f"{engine.program}: images of {version}")
    inputs = gather(arguments.out / "context", revision, epoch, base=not arguments.base)
    print(f"gathered in {time.monotonic() - begun:.0f} s")
    labels = {
        "VERSION": version,
        "REVISION": git("rev-parse", "HEAD"),
        "CREATED": datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "SOURCE_DATE_EPOCH": str(epoch),
        "INPUTS": inputs,
    }
    labels["BASE"] = arguments.base or _debian(engine, arguments.out / "context", version, labels["REVISION"])
    record = arguments.out / "images.json"
    images = json.loads(record.read_text(encoding="utf-8"))["images"] if record.exists() else {}
    for role in arguments.role or ROLES:
        since = time.monotonic()
        name = f"localhost/sonarc/{role}"
        tag = f"{name}:{version}"
        # Our own base is each commit's own; one that is given is not, and neither are the steps after it.
        cached = not arguments.base
        engine.build(role, tag, HERE / "Dockerfile", arguments.out / "context", labels, epoch, cached=cached)
        digest, reference = engine.digest(tag), name
        if arguments.push:
            reference = f"{arguments.push.rstrip('/')}/{role}"
            digest = engine.push(tag, f"{reference}:{version}")
        found, seconds = engine.inspect(tag), round(time.monotonic() - since)
        images[role] = {
            "reference": f"{reference}@{digest}",
            "tag": tag,
            "id": found["Id"] if "Id" in found else found["FromImageID"],
            "bytes": found.get("Size", 0),
            "version": version,
        }
        record.write_text(json.dumps({"schema": "sonarc.images/1", "images": images}, indent=2) + "\n", "utf-8")
        print(f"{role}: {found.get('Size', 0) / 1e6:,.0f} MB, {seconds} s, {reference}@{digest}")
    print(record)


def _debian(engine: Engine, context: Path, version: str, revision: str) -> str:
    """Make the base image of Debian's packages; gives its tag."""
    tag = f"localhost/sonarc/debian:{version}"
    arguments = {"SOURCE_DATE_EPOCH": str(EPOCH), "REVISION": revision}
    engine.build("debian", tag, HERE / "Dockerfile", context, arguments, EPOCH, cached=False)
    return tag


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m infra.images", description=__doc__)
    parser.add_argument("--role", action="append", choices=ROLES, help="only this image; repeat for more")
    parser.add_argument("--engine", default="", choices=PROGRAMS, help="default: the first that works")
    parser.add_argument(
        "--base", default="", help="NAME@sha256:… of an image with Python 3.11; default: Debian's packages"
    )
    parser.add_argument("--push", default="", help="registry and path to send the images to, as HOST/PATH")
    parser.add_argument("--out", type=Path, default=OUT, help="folder for the context and images.json")
    arguments = parser.parse_args()
    if arguments.base and not DIGEST.fullmatch(arguments.base):
        parser.error(f"--base {arguments.base} names no digest: NAME@sha256:…")
    return arguments


if __name__ == "__main__":
    main()
