"""A server that stands ready before there is a model: where deployers come and go, as containers do, it starts the
endpoint for them.

    python -m serving.standing --folder runs

It ends with SIGTERM and with `sonarc stop`, and so does the endpoint.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import threading
from pathlib import Path

from serving import control
from serving.state import Standing, read_desired, read_standing, standing, write_standing
from sonarc.contracts import log as logs
from sonarc.contracts.errors import SonarcError

log = logging.getLogger("serving.standing")

POLL_SECONDS = 0.25


def stand(folder: Path, stop: threading.Event) -> None:
    """Start what `serve.desired.json` comes to say while no server lives; return when told to end.

    Args:
        folder: of `serve.json` and its companions.
        stop: ends the endpoint and this.
    """
    with standing(folder) as record_id:
        known = desired.attempt if (desired := read_desired(folder)) else ""
        log.info("standing by in %s", folder)
        while not stop.wait(POLL_SECONDS) and _told_to_stay(folder, record_id):
            desired = read_desired(folder)
            if desired is None or desired.attempt == known or control.status(folder) is not None:
                continue
            known = desired.attempt
            try:
                control.start(folder, desired)
            except SonarcError as error:
                log.error("%s", error)
                write_standing(folder, Standing(id=record_id, refused=desired.attempt, problem=str(error)))
        control.end(folder)


def _told_to_stay(folder: Path, record_id: str) -> bool:
    record = read_standing(folder)
    return record is not None and record.id == record_id


def main() -> None:
    """Stand by until told to end."""
    parser = argparse.ArgumentParser(prog="python -m serving.standing", description=__doc__)
    parser.add_argument("--folder", required=True, type=Path, help="where serve.json is to be")
    folder = parser.parse_args().folder.absolute()
    logs.setup(os.environ.get("SONARC_LOG", "INFO"))
    stop = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stop.set())
    stand(folder, stop)


if __name__ == "__main__":
    main()
