"""Render a run again: `python -m sonarc.report runs/latest` prints its tables and writes its report.html."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sonarc.contracts.errors import SonarcError
from sonarc.report.html import write_report
from sonarc.report.summary import read_summary
from sonarc.report.terminal import print_summary


def main() -> int:
    """Exit code: 0, or the error's own."""
    parser = argparse.ArgumentParser(prog="python -m sonarc.report", description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a run: summary.json and, if it got that far, samples/")
    run: Path = parser.parse_args().run
    samples = run / "samples"
    try:
        summary = read_summary(str(run / "summary.json"))
        write_report(summary, samples if samples.is_dir() else None, run / "report.html")
    except SonarcError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print_summary(summary)
    return 0


if __name__ == "__main__":
    sys.exit(main())
