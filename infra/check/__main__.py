"""Render every overlay into a file that a cluster can be given, unless something is wrong with one.

python -m infra.check --out build/manifests
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import yaml

from infra.check.render import INFRA, OVERLAYS, render
from infra.check.rules import breaches
from infra.check.schemas import SCHEMAS, Schemas


def main() -> None:
    """Exits with 1 where an overlay has problems; its file is then not written."""
    parser = argparse.ArgumentParser(prog="python -m infra.check", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/manifests"), help="folder of the rendered files")
    parser.add_argument("--schemas", type=Path, default=SCHEMAS, help="folder of KubeRay's (and Kueue's) definitions")
    arguments = parser.parse_args()
    schemas, failed = Schemas(arguments.schemas), False
    arguments.out.mkdir(parents=True, exist_ok=True)
    for overlay in OVERLAYS:
        documents = render(INFRA / "overlays" / overlay)
        problems = [problem for document in documents for problem in schemas.problems(document)] + breaches(documents)
        excused = sorted({f"{doc['kind']} ({schemas.excuse(doc)})" for doc in documents if schemas.excuse(doc)})
        target = arguments.out / f"{overlay}.yaml"
        if problems:
            failed = True
            target.unlink(missing_ok=True)
            print(f"{overlay}: {len(problems)} problems", *problems, sep="\n  ")
        else:
            target.write_text(yaml.safe_dump_all(documents, sort_keys=False, allow_unicode=True), encoding="utf-8")
            print(f"{target}: {len(documents)} objects", *(f"unvalidated: {kind}" for kind in excused), sep="\n  ")
    sys.exit(failed)


if __name__ == "__main__":
    main()
